package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/isthmus-mesh/isthmus/pkg/proxyproto"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

const proxyFilter = `"listener_filters":[{"name":"envoy.filters.listener.proxy_protocol","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"}}],`

// behind makes the gateway one that another proxy is before.
func (b *bed) behind(t *testing.T) string {
	t.Helper()
	text := strings.Replace(b.gateway(), `"filter_chains"`, proxyFilter+`"filter_chains"`, 1)
	b.cfg = b.cfg.With(l7.Update{Listeners: map[string]*l7.Listener{"0.0.0.0_8080": compile(t, text, &listenerv3.Listener{}, l7.CompileListener)}})
	if err := b.server.SetConfig(t.Context(), b.cfg); err != nil {
		t.Fatal(err)
	}
	return b.server.Address("0.0.0.0_8080").String()
}

// through sends bytes and then a request, and returns the status; 0 when there is no answer.
func through(t *testing.T, address, before string) int {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, before+"GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n"); err != nil {
		return 0
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

// Where it is configured, the client is who the proxy before says, and the peer stays who it is.
func TestClientsAreIntroduced(t *testing.T) {
	b := newBed(t)
	b.apply(b.backend("reviews", say("v1")))
	address := b.behind(t)
	client := proxyproto.Header{Source: netip.MustParseAddrPort("203.0.113.5:4321"), Destination: netip.MustParseAddrPort("198.51.100.1:80")}
	for n, v := range []proxyproto.Version{proxyproto.V1, proxyproto.V2} {
		if status := through(t, address, string(client.Append(nil, v))); status != 200 {
			t.Fatalf("status %d", status)
		}
		r := b.records.last(t, n+1)
		if r.Client != client.Source || r.Server != client.Destination || !r.Peer.Addr().IsLoopback() {
			t.Errorf("the client is %+v", r)
		}
	}
	if status := through(t, address, string(proxyproto.Header{}.Append(nil, proxyproto.V2))); status != 200 {
		t.Fatalf("status %d", status)
	}
	if r := b.records.last(t, 3); !r.Client.Addr().IsLoopback() || r.Client != r.Peer {
		t.Errorf("the proxy's own connection is of %+v", r)
	}
	for n, before := range []string{"", "PROXY TCP4 1.2.3.4\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00"} {
		if status := through(t, address, before); status != 0 {
			t.Errorf("%q is answered %d", before, status)
		}
		if r := b.records.last(t, 4+n); r.Details != "proxy_protocol" || r.Flags != "DPE" {
			t.Errorf("%q is accounted as %+v", before, r)
		}
	}
}

// Elsewhere a header is not believed: it is no HTTP.
func TestNobodyIntroducesThemselves(t *testing.T) {
	b := newBed(t)
	b.apply(b.backend("reviews", say("v1")))
	header := proxyproto.Header{Source: netip.MustParseAddrPort("203.0.113.5:4321"), Destination: netip.MustParseAddrPort("198.51.100.1:80")}
	for _, v := range []proxyproto.Version{proxyproto.V1, proxyproto.V2} {
		if status := through(t, b.server.Address("0.0.0.0_8080").String(), string(header.Append(nil, v))); status == 200 {
			t.Error("a client says who it is")
		}
	}
}

// A proxy that says nothing, or goes on for ever, is not waited for without end.
func TestIntroductionsAreBounded(t *testing.T) {
	b := newBedWith(t, Limits{HandshakeTimeout: 200 * time.Millisecond})
	b.apply(b.backend("reviews", say("v1")))
	address := b.behind(t)
	for _, before := range []string{"", "PROXY TCP4 ", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff"} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, before)
		_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		var timeout net.Error
		if _, err := conn.Read(make([]byte, 1)); errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("after %q the connection stays open", before)
		}
		conn.Close()
	}
}
