package proxy

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// TestSlowHeads is a gateway that waits for the end of a head no longer than it is told to.
func TestSlowHeads(t *testing.T) {
	b := newBed(t)
	b.apply(b.backend("reviews", say("hello")))
	text := strings.Replace(b.gateway(), `"server_name"`, `"request_headers_timeout":"0.2s","server_name"`, 1)
	b.cfg = b.cfg.With(l7.Update{Listeners: map[string]*l7.Listener{"0.0.0.0_8080": compile(t, text, &listenerv3.Listener{}, l7.CompileListener)}})
	if err := b.server.SetConfig(t.Context(), b.cfg); err != nil {
		t.Fatal(err)
	}
	for _, begin := range []string{"G", "GET / HTTP/1.1\r\nHost: x\r\nA: "} {
		conn, err := net.Dial("tcp", b.server.Address("0.0.0.0_8080").String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, begin)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || response.StatusCode != http.StatusRequestTimeout {
			t.Errorf("%q: %+v, %v", begin, response, err)
		}
		conn.Close()
	}
}

// TestStrictness is what is refused unless the listener says that it is taken.
func TestStrictness(t *testing.T) {
	b := newBed(t)
	b.apply(b.backend("reviews", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("A")) }))
	ask := func() int {
		conn, err := net.Dial("tcp", b.server.Address("0.0.0.0_8080").String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nA: 1\r\n 2\r\n\r\n")
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode
	}
	if got := ask(); got != 400 {
		t.Errorf("%d for a folded field", got)
	}
	text := strings.Replace(b.gateway(), `"filter_chains"`, `"metadata":{"filter_metadata":{"isthmus.mesh":{"folded_headers":"unfold"}}},"filter_chains"`, 1)
	b.cfg = b.cfg.With(l7.Update{Listeners: map[string]*l7.Listener{"0.0.0.0_8080": compile(t, text, &listenerv3.Listener{}, l7.CompileListener)}})
	if err := b.server.SetConfig(t.Context(), b.cfg); err != nil {
		t.Fatal(err)
	}
	if got := ask(); got != 200 {
		t.Errorf("%d for a folded field, though it is taken", got)
	}
}
