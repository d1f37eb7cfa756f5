package l7

import (
	"fmt"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// manyRoutes is n routes of mixed kinds and one that takes the rest.
func manyRoutes(n int) string {
	var b strings.Builder
	for i := range n {
		switch i % 4 {
		case 0:
			fmt.Fprintf(&b, `{'name': 'r%d', 'match': {'path': '/exact/%d'}, 'route': {'cluster': 'up'}},`, i, i)
		case 1, 2:
			fmt.Fprintf(&b, `{'name': 'r%d', 'match': {'path_separated_prefix': '/api/v1/%d'}, 'route': {'cluster': 'up', 'timeout': '3s'}},`, i, i)
		case 3:
			fmt.Fprintf(&b, `{'name': 'r%d', 'match': {'prefix': '/p/%d/', 'headers': [{'name': 'end-user', 'string_match': {'exact': 'jason'}}]}, 'route': {'cluster': 'up2'}},`, i, i)
		}
	}
	b.WriteString(`{'name': 'rest', 'match': {'prefix': '/'}, 'request_headers_to_add': [{'header': {'key': 'x-a', 'value': 'b'}}],
		'route': {'weighted_clusters': {'clusters': [{'name': 'up', 'weight': 90}, {'name': 'up2', 'weight': 10}]}, 'retry_policy': {'retry_on': '5xx'}}}`)
	return b.String()
}

const rbacFilter = `{'name': 'envoy.filters.http.rbac', 'typed_config': {'@type': '` + typeURL + `extensions.filters.http.rbac.v3.RBAC', 'rules': {'action': 'ALLOW',
	'policies': {'ns[default]-policy[a]-rule[0]': {'permissions': [{'and_rules': {'rules': [{'or_rules': {'rules': [{'header': {'name': ':method', 'string_match': {'exact': 'GET'}}}]}}]}}],
	'principals': [{'filter_state': {'key': 'io.istio.peer_principal', 'string_match': {'exact': 'spiffe://td/ns/default/sa/a'}}}]}}}}}`

func benchWorld(b testing.TB, n int) *world {
	w := newWorld(b, manager("'normalize_path': true", rbacFilter, vhost(manyRoutes(n))))
	w.conn.Identity, w.conn.Authority = "spiffe://td/ns/default/sa/a", "10.1.1.1:8080"
	return w
}

func fill(h *httpmsg.Head, path string) {
	h.Reset()
	h.Version, h.Method, h.Authority, h.Path = httpmsg.HTTP11, "GET", "reviews.default.svc.cluster.local:9080", path
	h.Header.Add("user-agent", "curl/8")
	h.Header.Add("accept", "*/*")
	h.Header.Add("x-forwarded-proto", "http")
	h.Header.Add("x-b3-traceid", "0123456789abcdef")
	h.Header.Add("cookie", "session=0123456789")
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 1000} {
		for _, path := range []string{"/exact/4", "/api/v1/5/x/y?z=1", "/productpage"} {
			b.Run(fmt.Sprintf("routes=%d%s", n, path[:4]), func(b *testing.B) {
				w := benchWorld(b, n)
				ch, _ := w.cfg.Chain("l", &w.conn, ProtocolUnknown)
				var h httpmsg.Head
				b.ReportAllocs()
				for b.Loop() {
					fill(&h, path)
					w.req.Begin(&h, &w.conn)
					w.cfg.Decide(&w.d, ch, &w.req, w.now, w.rnd)
					if w.d.Reply != nil {
						b.Fatal(w.d.Reply.Details)
					}
				}
			})
		}
	}
}

func BenchmarkApplyResponse(b *testing.B) {
	w := benchWorld(b, 10)
	w.decide(b, request("GET /productpage"))
	var h httpmsg.Head
	info := ResponseInfo{Now: w.now, Attempts: 1}
	b.ReportAllocs()
	for b.Loop() {
		w.req.Scratch.Reset()
		h.Reset()
		h.Status = 200
		w.d.ApplyResponse(&w.req, &h, &info)
	}
}

// The steady path allocates nothing: what Decide makes lives in memory of the request.
func TestDecideDoesNotAllocate(t *testing.T) {
	w := benchWorld(t, 1000)
	ch, _ := w.cfg.Chain("l", &w.conn, ProtocolUnknown)
	var h, resp httpmsg.Head
	info := ResponseInfo{Now: w.now, Attempts: 1}
	for _, path := range []string{"/exact/4", "/api/v1/5/x/y?z=1", "/productpage", "/a/../b"} {
		run := func() {
			fill(&h, path)
			w.req.Begin(&h, &w.conn)
			w.cfg.Decide(&w.d, ch, &w.req, w.now, w.rnd)
			resp.Reset()
			resp.Status = 200
			w.d.ApplyResponse(&w.req, &resp, &info)
		}
		run()
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: %v allocations", path, n)
		}
		if w.d.Reply != nil {
			t.Errorf("%s: %s", path, w.d.Reply.Details)
		}
	}
}

func BenchmarkCompileRoutes(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			p := parse(b, &routev3.RouteConfiguration{}, "{'name': 'r', "+vhost(manyRoutes(n))+"}")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := CompileRoutes(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
