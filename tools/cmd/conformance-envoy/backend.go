package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/proxyproto"
)

// seen is what a backend received; it is the body of its answer.
type seen struct {
	Workload string            `json:"workload"`
	Peer     string            `json:"peer"` // identity of the other end of the tunnel, "" without one
	Protocol string            `json:"protocol"`
	Method   string            `json:"method"`
	Path     string            `json:"path"`
	Host     string            `json:"host"`
	Headers  map[string]string `json:"headers"`
	Body     string            `json:"body,omitempty"`
	Client   string            `json:"client,omitempty"` // address that a PROXY header told
}

// backends are all serving pods. What a request with the header x-echo-key met is remembered under that key.
type backends struct {
	mu   sync.Mutex // guards what follows
	keys map[string][]string
}

// Headers that tell a backend what to do.
const (
	echoKey      = "X-Echo-Key"      // name of the request: attempts are counted by it
	echoStatus   = "X-Echo-Status"   // statuses of the first, second, … attempt; the last one stays
	echoDelay    = "X-Echo-Delay"    // pause before the answer
	echoHeaders  = "X-Echo-Headers"  // a=b;c=d: headers of the answer
	echoTrailers = "X-Echo-Trailers" // a=b;c=d: trailers of the answer
	echoEarly    = "X-Echo-Early"    // status of an interim answer, such as 103
	echoReset    = "X-Echo-Reset"    // how many attempts are cut off
)

func (b *backends) met(key, workload string) (attempt int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys[key] = append(b.keys[key], workload)
	return len(b.keys[key])
}

// of returns the workloads that the request with the key has met.
func (b *backends) of(key string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.keys[key]...)
}

// serve starts one pod. It goes on until the process ends.
func (b *backends) serve(ctx context.Context, p *pki, w workload) error {
	account := w.account
	if w.impostor {
		account = "somebody-else"
	}
	identity, err := p.workload(w.namespace, account)
	if err != nil {
		return err
	}
	var own *tls.Config
	switch {
	case w.sidecar:
		own = &tls.Config{Certificates: []tls.Certificate{identity.Certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: identity.Roots}
	case w.tls != "":
		cert, err := p.server(w.tls)
		if err != nil {
			return err
		}
		own = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: identity.Roots}
	}
	if w.plain || w.sidecar {
		for _, port := range w.ports {
			l, err := net.Listen("tcp", netip.AddrPortFrom(w.ip, uint16(port)).String())
			if err != nil {
				return fmt.Errorf("serve %s: %w", w.name, err)
			}
			go accept(l, func(c net.Conn) { b.secured(ctx, w, "", c, own) })
		}
		return nil
	}
	l, err := net.Listen("tcp", netip.AddrPortFrom(w.ip, 15008).String())
	if err != nil {
		return fmt.Errorf("serve %s: %w", w.name, err)
	}
	config := certs.HBONEServerConfig(func() (*certs.Workload, error) { return identity, nil })
	go accept(l, func(c net.Conn) {
		secure := tls.Server(c, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			c.Close()
			return
		}
		peer, _ := certs.PeerID(secure.ConnectionState())
		hbone.ServeConn(ctx, secure, tunnels{b, w, peer.String(), own}, hbone.ServerConfig{})
	})
	return nil
}

func accept(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go serve(c)
	}
}

// tunnels answers CONNECTs to one pod.
type tunnels struct {
	b    *backends
	w    workload
	peer string
	own  *tls.Config // of an application that speaks TLS
}

// ServeCONNECT implements hbone.Handler.
func (t tunnels) ServeCONNECT(ctx context.Context, r *hbone.Request, w hbone.ResponseWriter) {
	to, err := hbone.ParseAuthority(r.Authority)
	if err != nil || to.Addr != t.w.ip {
		w.Refuse(http.StatusBadGateway, nil)
		return
	}
	for _, port := range t.w.ports {
		if int(to.Port) == port {
			if stream, err := w.Accept(nil); err == nil {
				t.b.secured(ctx, t.w, t.peer, stream, t.own)
			}
			return
		}
	}
	w.Refuse(http.StatusServiceUnavailable, nil)
}

// secured serves a connection that may begin with TLS.
func (b *backends) secured(ctx context.Context, w workload, peer string, c net.Conn, own *tls.Config) {
	if own == nil {
		b.conn(w, peer, c)
		return
	}
	secure := tls.Server(c, own)
	if err := secure.HandshakeContext(ctx); err != nil {
		c.Close()
		return
	}
	if id, ok := certs.PeerID(secure.ConnectionState()); ok {
		peer = id.String()
	}
	b.conn(w, peer, secure)
}

// conn serves one connection: HTTP in both versions; tcp-echo lines.
func (b *backends) conn(w workload, peer string, c net.Conn) {
	defer c.Close()
	if strings.HasPrefix(w.name, "tcp-echo") {
		lines(w, c, bufio.NewReader(c))
		return
	}
	r := bufio.NewReader(c)
	first, err := r.Peek(4)
	if err != nil {
		return
	}
	client := ""
	if text := string(first); text == "PROX" || text == "\r\n\r\n" {
		header, err := proxyproto.Read(r)
		if err != nil {
			return
		}
		client = header.Source.Addr().String()
		if first, err = r.Peek(4); err != nil {
			return
		}
	}
	if bytes.HasPrefix(first, []byte("line")) {
		lines(w, c, r)
		return
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Protocols: protocols, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, rq *http.Request) { b.answer(w, peer, client, rw, rq) }),
	}
	l := newOneConn(peeked{c, r})
	server.Serve(l)
}

// lines answers lines with the name of the pod.
func lines(w workload, c net.Conn, r *bufio.Reader) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(c, "%s %s", w.name, line); err != nil {
			return
		}
	}
}

func (b *backends) answer(w workload, peer, client string, rw http.ResponseWriter, r *http.Request) {
	if w.labels["app"] == "authz" {
		authorize(rw, r)
		return
	}
	if r.Method == http.MethodConnect && r.Header.Get(":protocol") == "websocket" {
		upgradeH2(w, rw, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	attempt := 1
	if key := r.Header.Get(echoKey); key != "" {
		attempt = b.met(key, w.name)
	}
	if n, err := strconv.Atoi(r.Header.Get(echoReset)); err == nil && attempt <= n {
		panic(http.ErrAbortHandler)
	}
	if d, err := time.ParseDuration(r.Header.Get(echoDelay)); err == nil {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			return
		}
	}
	status := http.StatusOK
	if list := strings.Split(r.Header.Get(echoStatus), ","); list[0] != "" {
		if n, err := strconv.Atoi(list[min(attempt, len(list))-1]); err == nil {
			status = n
		}
	}
	if r.Header.Get("Upgrade") == "websocket" {
		upgrade(w, rw)
		return
	}
	headers := map[string]string{}
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	for _, pair := range strings.Split(r.Header.Get(echoHeaders), ";") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			rw.Header().Add(name, value)
		}
	}
	if early, err := strconv.Atoi(r.Header.Get(echoEarly)); err == nil {
		rw.Header().Set("Link", "</style.css>; rel=preload")
		rw.WriteHeader(early)
		rw.Header().Del("Link")
	}
	rw.Header().Set("X-Echo-Workload", w.name)
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	json.NewEncoder(rw).Encode(seen{
		Workload: w.name, Peer: peer, Protocol: r.Proto, Method: r.Method, Path: r.RequestURI, Host: r.Host, Headers: headers, Body: string(body), Client: client,
	})
	for _, pair := range strings.Split(r.Header.Get(echoTrailers), ";") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			rw.Header().Set(http.TrailerPrefix+name, value)
		}
	}
}

// upgrade answers lines after the handshake that a WebSocket client expects.
func upgrade(w workload, rw http.ResponseWriter) {
	c, buffered, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Echo-Workload: %s\r\n\r\n", w.name)
	lines(w, c, buffered.Reader)
}

// peeked is a connection some bytes of which have been read ahead.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// oneConn is a listener with one connection, which ends with that.
type oneConn struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	addr  net.Addr
}

func newOneConn(c net.Conn) *oneConn {
	l := &oneConn{conns: make(chan net.Conn, 1), done: make(chan struct{}), addr: c.LocalAddr()}
	l.conns <- closing{c, l}
	return l
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *oneConn) Addr() net.Addr { return l.addr }

// closing tells the listener when its connection is closed.
type closing struct {
	net.Conn
	l *oneConn
}

func (c closing) Close() error {
	c.l.Close()
	return c.Conn.Close()
}
