package l7

import (
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

func encode(t testing.TB, m proto.Message, text string) []byte {
	t.Helper()
	b, err := proto.Marshal(parse(t, m, text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Whatever routes a control plane sends and whatever a client asks for: an error or an answer, never a panic; the index finds the
// route that asking all of them in order finds.
func FuzzRoutes(f *testing.F) {
	for _, text := range []string{
		manyRoutes(8),
		`{'match': {'connect_matcher': {}}, 'route': {'cluster': 'up'}}, {'match': {'prefix': '/a'}, 'redirect': {'prefix_rewrite': '/b', 'strip_query': true}}`,
		`{'match': {'safe_regex': {'regex': '/.*'}}, 'route': {'cluster': 'up', 'regex_rewrite': {'pattern': {'regex': '(a)'}, 'substitution': '\\1'}, 'hash_policy': [{'cookie': {'name': 'c', 'ttl': '1s'}}]}}`,
		`{'match': {'path': '/A', 'case_sensitive': false}, 'route': {'cluster': 'up', 'prefix_rewrite': '/long/er', 'host_rewrite_header': 'x-a', 'append_x_forwarded_host': true}}`,
	} {
		rc := encode(f, &routev3.RouteConfiguration{}, "{'name': 'r', "+vhost(text)+"}")
		f.Add(rc, "GET", "h:80", "/a/../b?c=d", "x-a", "1")
		f.Add(rc, "CONNECT", "[::1]:5", "", "content-type", "application/grpc")
		f.Add(rc, "OPTIONS", "H", "*", "origin", "o")
	}
	f.Fuzz(func(t *testing.T, rc []byte, method, authority, path, key, value string) {
		p := &routev3.RouteConfiguration{}
		if proto.Unmarshal(rc, p) != nil {
			return
		}
		routes, err := CompileRoutes(p)
		if err != nil {
			return
		}
		w := newWorld(t, manager("'use_remote_address': true, 'normalize_path': true", faultAny+","+corsAny, vhost("")))
		ch, _ := w.cfg.Chain("l", &w.conn, ProtocolUnknown)
		ch.HTTP.Inline = routes
		h := &httpmsg.Head{}
		h.Reset()
		h.Version, h.Method, h.Authority, h.Path = httpmsg.HTTP11, method, authority, path
		h.Header.Add(strings.ToLower(key), value)
		w.decide(t, h)
		info := &ResponseInfo{Now: w.now, Attempts: 1}
		var resp httpmsg.Head
		resp.Reset()
		if w.d.Reply != nil {
			w.d.LocalReply(&w.req, w.d.Reply, info, &resp)
			if resp.Status < 200 {
				t.Fatalf("status %d", resp.Status)
			}
		} else {
			resp.Status = 200
			w.d.ApplyResponse(&w.req, &resp, info)
			w.d.OnResponse(&resp)
		}
		checkIndex(t, routes, w)
	})
}

// checkIndex compares the index with a walk over all routes.
func checkIndex(t *testing.T, routes *Routes, w *world) {
	t.Helper()
	for _, vh := range routes.hosts {
		var want *Route
		path := w.req.Head.Path
		if i := strings.IndexAny(path, "?#"); i >= 0 {
			path = path[:i]
		}
		for _, rt := range vh.routes {
			if rt.match.matches(&w.req, path) {
				want = rt
				break
			}
		}
		if got := vh.index.find(&w.req); got != want {
			t.Fatalf("%q: the index finds %+v, asking all of them %+v", w.req.Head.Path, got, want)
		}
	}
}

// A listener of whatever shape is refused or compiled.
func FuzzListener(f *testing.F) {
	for _, text := range []string{strings.Replace(terminate, "@PEER@", "%DOWNSTREAM_PEER_URI_SAN%", 1), originate, mainInternal()} {
		f.Add(encode(f, &listenerv3.Listener{}, text))
	}
	f.Fuzz(func(_ *testing.T, l []byte) {
		p := &listenerv3.Listener{}
		if proto.Unmarshal(l, p) != nil {
			return
		}
		c, err := CompileListener(p)
		if err != nil {
			return
		}
		cfg := NewConfig().With(Update{Listeners: map[string]*Listener{"l": c}})
		conn := &Conn{}
		cfg.NeedsSniff("l", conn)
		cfg.Chain("l", conn, ProtocolHTTP1)
	})
}
