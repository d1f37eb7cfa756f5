package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/proxyproto"
)

const requestTimeout = 20 * time.Second

// result is what came of a request.
type result struct {
	status   int
	header   http.Header
	trailer  http.Header
	body     string
	seen     *seen // nil when no backend answered
	refused  string
	took     time.Duration
	attempts []string       // workloads that were met
	met      []string       // workloads that have answered, of several requests, sorted
	metCount bool           // both engines must have met the same
	statuses []int          // that came, of several requests, sorted
	shares   map[string]int // how many of several requests each workload has answered, in percent
	answers  []*result      // one of each status, by status, of requests at once: which of those is the last is nobody's doing
	tls      string         // how a handshake went
	log      string         // line of the access log, after the key
}

// send sends a request through a proxy, as often as it says.
func (b *testbed) send(ctx context.Context, p *proxy, r request) (*result, error) {
	if r.Repeat < 2 {
		return b.sendOnce(ctx, p, r)
	}
	return b.sendOften(ctx, p, r)
}

// sendOnce sends a request through a proxy.
func (b *testbed) sendOnce(ctx context.Context, p *proxy, r request) (*result, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	key := fmt.Sprintf("k%06d", b.keys.Add(1))
	conn, err := b.connect(ctx, p, r)
	if err != nil {
		if refused, ok := asRefusal(err); ok {
			return &result{refused: refused}, nil
		}
		return nil, err
	}
	defer conn.Close()
	if err := b.introduce(conn, r); err != nil {
		return nil, err
	}
	tlsFacts := ""
	if r.TLS != "" {
		config, err := b.clientTLS(r)
		if err != nil {
			return nil, err
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return &result{refused: refusal(err)}, nil
		}
		conn, tlsFacts = secure, handshaken(secure.ConnectionState())
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	start := time.Now()
	out, err := b.exchange(ctx, conn, r, key)
	if err != nil {
		out = &result{refused: refusal(err)}
	}
	out.tls = tlsFacts
	out.took = time.Since(start)
	if r.Want.Mirrored != "" {
		b.waitMet(ctx, key, r.Want.Mirrored)
	}
	if r.logged && r.WebSocket == "" { // an upgrade is logged at its end
		out.log = b.logLine(ctx, p, key)
	}
	out.attempts = b.backends.of(key)
	return out, nil
}

// refusal sorts the ways in which connections end.
func refusal(err error) string {
	if ne, ok := err.(net.Error); ok && ne.Timeout() { //nolint:errorlint // looked at, not passed on
		return "timeout"
	}
	return "closed"
}

func asRefusal(err error) (string, bool) {
	if status, ok := err.(*hbone.StatusError); ok { //nolint:errorlint // as it comes from the tunnel
		return fmt.Sprintf("CONNECT %d", status.Status), true
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "no listener", true
	}
	if errors.Is(err, syscall.ECONNRESET) { // it was taken, and reset before the dialer looked
		return "closed", true
	}
	return "", false
}

// waitMet gives a mirrored request time to arrive.
func (b *testbed) waitMet(ctx context.Context, key, workload string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for ctx.Err() == nil && !slices.Contains(b.backends.of(key), workload) {
		pause(ctx, 10*time.Millisecond)
	}
}

func (b *testbed) connect(ctx context.Context, p *proxy, r request) (net.Conn, error) {
	client, err := b.client(r.As)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: client.ip.AsSlice()}}
	if p.pair.kind != "waypoint" {
		port, err := strconv.ParseUint(orDefault(r.To, b.defaultPort(r.Via)), 10, 16)
		if err != nil {
			return nil, fmt.Errorf("to: %q is not a port", r.To)
		}
		return dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(p.ns.ip, uint16(port)).String())
	}
	to, err := b.destination(r.To)
	if err != nil {
		return nil, err
	}
	identity, err := b.pki.workload(client.namespace, client.account)
	if err != nil {
		return nil, err
	}
	raw, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(p.ns.ip, 15008).String())
	if err != nil {
		return nil, err
	}
	secure := tls.Client(raw, certs.HBONEClientConfig(identity, []string{"spiffe://" + trustDomain + "/ns/" + p.pair.namespace + "/sa/" + p.pair.account}))
	if err := secure.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("handshake with %s: %w", p.pod, err)
	}
	tunnels, err := hbone.NewClientConn(secure, hbone.ClientConfig{})
	if err != nil {
		raw.Close()
		return nil, err
	}
	stream, _, err := tunnels.Connect(ctx, &hbone.Request{Authority: to.String()})
	if err != nil {
		tunnels.Close()
		return nil, err
	}
	return tunnelled{stream, tunnels}, nil
}

// tunnelled is a tunnel that owns its connection.
type tunnelled struct {
	net.Conn
	conn *hbone.ClientConn
}

// CloseWrite ends what goes into the tunnel.
func (t tunnelled) CloseWrite() error {
	if half, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

func (t tunnelled) Close() error {
	t.Conn.Close()
	return t.conn.Close()
}

// introduce sends a PROXY header, to gateways that want one.
func (b *testbed) introduce(conn net.Conn, r request) error {
	if r.Via == "waypoint" || r.Via == "" || b.proxied == "" && r.Proxy == "" || r.Proxy == "none" {
		return nil
	}
	text := strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\0`, "\x00").Replace(orDefault(r.Proxy, b.proxied))
	version, addresses, _ := strings.Cut(text, " ")
	v := map[string]proxyproto.Version{"v1": proxyproto.V1, "v2": proxyproto.V2}[version]
	if v == 0 {
		_, err := io.WriteString(conn, text)
		return err
	}
	var header proxyproto.Header
	if addresses != "own" {
		from, to, _ := strings.Cut(addresses, " ")
		var err error
		if header.Source, err = netip.ParseAddrPort(from); err != nil {
			return err
		}
		if header.Destination, err = netip.ParseAddrPort(to); err != nil {
			return err
		}
	}
	_, err := conn.Write(header.Append(nil, v))
	return err
}

func (b *testbed) client(name string) (workload, error) {
	name = orDefault(name, "curl")
	for _, w := range workloads() {
		if w.name == name {
			return w, nil
		}
	}
	return workload{}, fmt.Errorf("as: there is no pod %q", name)
}

func (b *testbed) defaultPort(via string) string {
	if via == "gateway" {
		return "80"
	}
	return "8080"
}

// destination reads service:port, service.namespace:port or address:port.
func (b *testbed) destination(text string) (netip.AddrPort, error) {
	if to, err := netip.ParseAddrPort(text); err == nil {
		return to, nil
	}
	name, port, ok := strings.Cut(text, ":")
	for _, s := range services() {
		if ok && (name == s.name && s.namespace == "default" || name == s.name+"."+s.namespace) {
			n, err := strconv.ParseUint(port, 10, 16)
			return netip.AddrPortFrom(s.vip, uint16(n)), err
		}
	}
	return netip.AddrPort{}, fmt.Errorf("to: %q is not service:port", text)
}

// headers of the request, with those that this command adds.
func (b *testbed) headers(r request, key string) (map[string]string, error) {
	out := map[string]string{"X-Echo-Key": key}
	for k, v := range r.Headers {
		out[k] = v
	}
	if r.Claims != nil {
		token, err := b.pki.signed(r.Claims)
		if err != nil {
			return nil, err
		}
		if _, given := out["Authorization"]; !given {
			out["Authorization"] = "Bearer {token}"
		}
		for k, v := range out {
			out[k] = strings.ReplaceAll(v, "{token}", token)
		}
	}
	return out, nil
}

func (r request) host() string {
	if r.Host != "" {
		return r.Host
	}
	if r.Via == "" || r.Via == "waypoint" {
		return r.To
	}
	return "bookinfo.example.com"
}

func (b *testbed) exchange(ctx context.Context, c net.Conn, r request, key string) (*result, error) {
	headers, err := b.headers(r, key)
	if err != nil {
		return nil, err
	}
	switch {
	case r.TCP != "":
		return line(c, bufio.NewReader(c), r.TCP)
	case r.WebSocket != "" && r.H2:
		return exchangeUpgradedH2(c, r, headers)
	case len(r.Fields) > 0:
		return exchangeFields(c, r, key)
	case r.H2:
		return exchangeH2(ctx, c, r, headers)
	}
	text := r.Raw
	if text == "" {
		text = r.http1(headers)
	}
	if _, err := io.WriteString(c, strings.ReplaceAll(text, "{key}", key)); err != nil {
		return nil, err
	}
	reader := bufio.NewReader(c)
	response, err := final(reader, orDefault(r.Method, http.MethodGet))
	if err != nil {
		return nil, err
	}
	if r.WebSocket != "" && response.StatusCode == http.StatusSwitchingProtocols {
		out, err := line(c, reader, r.WebSocket)
		if err != nil {
			return nil, err
		}
		out.status, out.header = response.StatusCode, response.Header
		return out, nil
	}
	return readResult(response)
}

// http1 is the request as text: exactly the headers given.
func (r request) http1(headers map[string]string) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", orDefault(r.Method, http.MethodGet), orDefault(r.Path, "/"), r.host())
	if r.WebSocket != "" {
		b.WriteString("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
	}
	if r.Body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.Body))
	}
	for _, k := range sortedKeys(headers) {
		fmt.Fprintf(&b, "%s: %s\r\n", k, headers[k])
	}
	b.WriteString("\r\n" + r.Body)
	return b.String()
}

func exchangeH2(ctx context.Context, c net.Conn, r request, headers map[string]string) (*result, error) {
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		Protocols: protocols, DisableCompression: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil },
	}
	defer transport.CloseIdleConnections()
	host := r.host()
	rq := &http.Request{
		Method: orDefault(r.Method, http.MethodGet), Host: host, Header: http.Header{},
		URL: &url.URL{Scheme: "http", Host: host, Opaque: "http://" + host + orDefault(r.Path, "/")},
	}
	if r.Body != "" {
		rq.Body, rq.ContentLength = io.NopCloser(strings.NewReader(r.Body)), int64(len(r.Body))
	}
	for k, v := range headers {
		rq.Header.Set(k, v)
	}
	response, err := transport.RoundTrip(rq.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	return readResult(response)
}

func readResult(response *http.Response) (*result, error) {
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	out := &result{status: response.StatusCode, header: response.Header, trailer: response.Trailer, body: string(body)}
	if response.Header.Get("X-Echo-Workload") != "" {
		out.seen = &seen{}
		if json.Unmarshal(body, out.seen) != nil {
			out.seen = &seen{Workload: response.Header.Get("X-Echo-Workload")}
		}
	}
	return out, nil
}

// line sends a line and reads one.
func line(c net.Conn, r *bufio.Reader, text string) (*result, error) {
	if _, err := io.WriteString(c, text+"\n"); err != nil {
		return nil, err
	}
	answer, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	name, rest, _ := strings.Cut(strings.TrimSuffix(answer, "\n"), " ")
	return &result{body: rest, seen: &seen{Workload: name}}, nil
}

func orDefault(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}
