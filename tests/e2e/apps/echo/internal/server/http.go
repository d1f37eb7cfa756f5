package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/websocket"

	"github.com/isthmus-mesh/isthmus/tests/e2e/apps/echo/internal/field"
)

// serveHTTP speaks HTTP/1 and, with prior knowledge or by ALPN, HTTP/2.
func (s *server) serveHTTP(ctx context.Context, l net.Listener, p port) {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	h := &http.Server{
		Handler: &httpHandler{server: s, port: p.number}, Protocols: protocols, ReadHeaderTimeout: 30 * time.Second,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	if p.tls {
		h.TLSConfig = s.tls.Clone()
	}
	s.tasks.Go(func() {
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if h.Shutdown(ending) != nil {
			h.Close()
		}
	})
	var err error
	if p.tls {
		err = h.ServeTLS(l, "", "")
	} else {
		err = h.Serve(l)
	}
	s.Log.Debug("no longer serving", "port", p.number, "reason", err)
}

type httpHandler struct {
	*server
	port int
}

func (h *httpHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		// Any origin is welcome: the clients are tests.
		(&websocket.Server{Handler: func(c *websocket.Conn) { h.talk(c, r) }}).ServeHTTP(w, r)
		return
	}
	query := r.URL.Query()
	if d, err := time.ParseDuration(query.Get("delay")); err == nil && d > 0 {
		wait := time.NewTimer(d)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-r.Context().Done():
			return
		}
	}
	code, err := pick(query.Get("codes"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body) // a client that goes away is no concern
	for _, pair := range strings.Split(query.Get("headers"), ",") {
		if name, value, ok := strings.Cut(pair, ":"); ok {
			w.Header().Add(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, h.describe(r, code))
	h.Log.Debug("answered", "port", h.port, "method", r.Method, "url", r.URL, "code", code, "from", r.RemoteAddr)
}

// talk answers the first message of a WebSocket, and echoes the others.
func (h *httpHandler) talk(c *websocket.Conn, r *http.Request) {
	answer := h.describe(r, http.StatusOK)
	for {
		var message string
		if err := websocket.Message.Receive(c, &message); err != nil {
			return
		}
		if err := websocket.Message.Send(c, answer+message); err != nil {
			return
		}
		answer = ""
	}
}

// describe tells what was seen of the request.
func (h *httpHandler) describe(r *http.Request, code int) string {
	var out field.Lines
	out.Add(field.StatusCode, strconv.Itoa(code))
	out.Add(field.ServiceVersion, h.Version)
	out.Add(field.ServicePort, strconv.Itoa(h.port))
	out.Add(field.Host, r.Host)
	out.Add(field.URL, r.URL.RequestURI())
	out.Add(field.Cluster, h.Cluster)
	out.Add(field.Method, r.Method)
	out.Add(field.Proto, r.Proto)
	if from, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		out.Add(field.IP, from)
	}
	alpn := ""
	if r.TLS != nil {
		alpn = r.TLS.NegotiatedProtocol
		out.Add(field.ServerName, r.TLS.ServerName)
	}
	out.Add(field.Alpn, alpn)
	out.Headers(field.RequestHeader, r.Header)
	out.Add(field.Hostname, h.Hostname)
	return out.String()
}

// pick chooses a status from a list of "500:90,200:10", or "500".
func pick(list string) (int, error) {
	if list == "" {
		return http.StatusOK, nil
	}
	list, err := url.QueryUnescape(list)
	if err != nil {
		return 0, err
	}
	type choice struct{ code, weight int }
	var choices []choice
	total := 0
	for _, part := range strings.Split(list, ",") {
		text, weight, weighted := strings.Cut(part, ":")
		c := choice{weight: 1}
		if c.code, err = strconv.Atoi(text); err != nil || c.code < 200 || c.code > 599 {
			return 0, fmt.Errorf("codes: %q is no status", text)
		}
		if weighted {
			if c.weight, err = strconv.Atoi(weight); err != nil || c.weight < 0 {
				return 0, fmt.Errorf("codes: %q is no weight", weight)
			}
		}
		total += c.weight
		choices = append(choices, c)
	}
	if total == 0 {
		return 0, fmt.Errorf("codes: %q: no weight is positive", list)
	}
	point := rand.IntN(total)
	for _, c := range choices {
		if point -= c.weight; point < 0 {
			return c.code, nil
		}
	}
	return http.StatusOK, nil
}
