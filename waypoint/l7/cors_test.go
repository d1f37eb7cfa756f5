package l7

import "testing"

// TestCORSOfAll: a * alone is answered with what the client asks for, a list is told as it is.
func TestCORSOfAll(t *testing.T) {
	policy := func(config string) string {
		return perRoute("envoy.filters.http.cors", "extensions.filters.http.cors.v3.CorsPolicy", ", 'allow_origin_string_match': [{'exact': '*'}], "+config)
	}
	w := newWorld(t, manager("", corsAny, vhost(`
		{'match': {'prefix': '/all'}, 'route': {'cluster': 'up'}, `+policy(`'allow_methods': '*', 'allow_headers': '*'`)+`},
		{'match': {'prefix': '/list'}, 'route': {'cluster': 'up'}, `+policy(`'allow_methods': 'GET,*', 'allow_headers': 'x,*'`)+`}`)))
	for _, c := range []struct {
		request          string
		fields           []string
		methods, headers string
	}{
		{"OPTIONS /all", hs("access-control-request-method: PUT", "access-control-request-headers: a, b"), "PUT", "a, b"},
		{"OPTIONS /all", hs("access-control-request-method: PUT", "access-control-request-headers: a", "access-control-request-headers: b"), "PUT", "a,b"},
		{"OPTIONS /all", hs("access-control-request-method: PUT"), "PUT", ""},
		{"OPTIONS /list", hs("access-control-request-method: PUT", "access-control-request-headers: a"), "GET,*", "x,*"},
	} {
		w.decide(t, request(c.request, append([]string{"origin: http://o"}, c.fields...)...))
		_, h := w.reply()
		if methods, headers := h.Header.Value("access-control-allow-methods"), h.Header.Value("access-control-allow-headers"); methods != c.methods || headers != c.headers {
			t.Errorf("%s %v: methods %q, headers %q, want %q and %q", c.request, c.fields, methods, headers, c.methods, c.headers)
		}
		if h.Header.Value("access-control-allow-origin") != "http://o" {
			t.Errorf("%s: origin %q", c.request, h.Header.Value("access-control-allow-origin"))
		}
	}
	run(t, w, []row{{"OPTIONS /all", hs("origin: http://o", "access-control-request-method:"), " up /all x"}}) // no preflight
}
