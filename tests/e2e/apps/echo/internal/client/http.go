package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/websocket"

	"github.com/isthmus-mesh/isthmus/tests/e2e/apps/echo/internal/field"
)

// most is how much of an answer is read.
const most = 4 << 20

type httpSender struct {
	cfg       Config
	target    *url.URL
	transport *http.Transport
	client    *http.Client
}

func newHTTPSender(cfg Config, target *url.URL, config *tls.Config) *httpSender {
	protocols := &http.Protocols{}
	if cfg.HTTP2 {
		protocols.SetHTTP2(true)
		protocols.SetUnencryptedHTTP2(true)
	} else {
		protocols.SetHTTP1(true)
	}
	transport := &http.Transport{TLSClientConfig: config, Protocols: protocols, DisableKeepAlives: cfg.NewConnections, DisableCompression: true}
	client := &http.Client{Transport: transport}
	if !cfg.FollowRedirects {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	return &httpSender{cfg: cfg, target: target, transport: transport, client: client}
}

func (s *httpSender) close() { s.transport.CloseIdleConnections() }

func (s *httpSender) send(ctx context.Context, _ int) (field.Lines, string, error) {
	out := s.cfg.describe()
	var body io.Reader = http.NoBody
	if s.cfg.Message != "" {
		body = strings.NewReader(s.cfg.Message)
	}
	r, err := http.NewRequestWithContext(ctx, s.cfg.Method, s.target.String(), body)
	if err != nil {
		return out, "", err
	}
	r.Header = s.cfg.Headers.Clone()
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
		r.Header.Del("Host")
	}
	if r.Header.Get("User-Agent") == "" {
		r.Header.Set("User-Agent", "isthmus-echo-client")
	}
	response, err := s.client.Do(r)
	if err != nil {
		return out, "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, most))
	if err != nil {
		return out, "", fmt.Errorf("read the answer: %w", err)
	}
	out.Add(field.StatusCode, strconv.Itoa(response.StatusCode))
	out.Add("ResponseProto", response.Proto)
	if response.TLS != nil {
		out.Add(field.TLSVersion, tls.VersionName(response.TLS.Version))
		out.Add(field.Cipher, tls.CipherSuiteName(response.TLS.CipherSuite))
	}
	out.Headers(field.ResponseHeader, response.Header)
	return out, string(answer), nil
}

type webSocketSender struct {
	cfg    Config
	target *url.URL
	tls    *tls.Config
}

func (s *webSocketSender) close() {}

func (s *webSocketSender) send(ctx context.Context, _ int) (field.Lines, string, error) {
	out := s.cfg.describe()
	config := &websocket.Config{
		Location: s.target, Origin: &url.URL{Scheme: "http", Host: s.target.Host}, Version: websocket.ProtocolVersionHybi13,
		Header: s.cfg.Headers.Clone(), TlsConfig: s.tls,
	}
	c, err := config.DialContext(ctx)
	if err != nil {
		return out, "", err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := websocket.Message.Send(c, s.cfg.message()); err != nil {
		return out, "", err
	}
	var answer string
	if err := websocket.Message.Receive(c, &answer); err != nil {
		return out, "", err
	}
	return out, answer, nil
}

// message is what protocols without a method say.
func (c Config) message() string {
	if c.Message != "" {
		return c.Message
	}
	return "HelloWorld"
}
