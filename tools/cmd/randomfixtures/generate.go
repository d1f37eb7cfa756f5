package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// generator draws from small pools, so that what is drawn meets.
type generator struct {
	*rand.Rand
	seed uint64
}

// name is one that no other fixture has: the age of objects decides which of them counts.
func (g generator) name(kind string, i int) string { return fmt.Sprintf("%s-%d-%d", kind, g.seed, i) }

func (g generator) pick(from ...string) string { return from[g.IntN(len(from))] }

// one is true in one of n cases.
func (g generator) one(n int) bool { return g.IntN(n) == 0 }

// some are up to most values that f makes, one at least.
func some[T any](g generator, most int, f func() T) []any {
	var out []any
	for range 1 + g.IntN(most) {
		out = append(out, f())
	}
	return out
}

func (g generator) strings(most int, from ...string) []any {
	var out []any
	have := map[string]bool{}
	for range 1 + g.IntN(most) {
		if s := g.pick(from...); !have[s] {
			have[s] = true
			out = append(out, s)
		}
	}
	return out
}

func paths() []string {
	return []string{"/", "/a", "/a/", "/a/b", "/a/b/c", "/A/b", "/ab", "/b", "/b/1", "/b/22", "/b/x1", "/c.css", "/a%20b", "/a/b;v=1", "/é"}
}

func (g generator) path() string { return g.pick(paths()...) }

func (g generator) plainPath() string {
	return g.pick("/", "/a", "/a/", "/a/b", "/a/b/c", "/A/b", "/ab", "/b", "/b/1", "/c.css")
}

func (g generator) header() string { return g.pick("x-h", "x-t", "end-user", "cookie", "user-agent") }

func (g generator) value() string {
	return g.pick("v1", "v2", "v10", "jason", "a=b;user=jason", "x y", "V1", "1")
}

func (g generator) regex() string {
	return g.pick("v[0-9]+", ".*", "v1|v2", "^(.*?;)?(user=jason)(;.*)?$", "[a-z]*", "v.", ".+", "(?i)v1")
}

// stringMatch is Istio's.
func (g generator) stringMatch() object {
	switch g.IntN(5) {
	case 0, 1:
		return object{"exact": g.value()}
	case 2:
		return object{"prefix": g.pick("v", "v1", "j", "a=")}
	case 3:
		return object{"regex": g.regex()}
	}
	return object{}
}

func (g generator) uriMatch(m object) {
	switch g.IntN(5) {
	case 0, 1:
		m["uri"] = object{"exact": g.plainPath()}
	case 2, 3:
		m["uri"] = object{"prefix": g.plainPath()}
	default:
		m["uri"] = object{"regex": g.pick("/a.*", "/b/[0-9]+", "/(a|b)/[^/]+", ".*css", "/", "/a/?(b/.*)?")}
		return
	}
	if g.one(4) {
		m["ignoreUriCase"] = true
	}
}

func (g generator) headerMatches(most int) object {
	out := object{}
	for range 1 + g.IntN(most) {
		out[g.header()] = g.stringMatch()
	}
	return out
}

func (g generator) httpMatch(gateway bool) object {
	m := object{}
	if !g.one(4) {
		g.uriMatch(m)
	}
	if g.one(3) {
		m["headers"] = g.headerMatches(2)
	}
	if g.one(6) {
		without := object{}
		for k := range g.headerMatches(1) {
			without[k] = []object{{"exact": g.value()}, {"prefix": "v"}, {"regex": g.regex()}, {}}[g.IntN(4)]
		}
		m["withoutHeaders"] = without
	}
	if g.one(5) {
		m["method"] = []object{{"exact": g.pick("GET", "POST", "PUT")}, {"prefix": "P"}, {"regex": "GET|HEAD"}}[g.IntN(3)]
	}
	if g.one(5) {
		q := object{}
		q[g.pick("q", "page")] = []object{{"exact": g.pick("1", "v1", "")}, {"regex": "[0-9]+"}, {"prefix": "v"}, {}}[g.IntN(4)]
		m["queryParams"] = q
	}
	if g.one(8) {
		m["authority"] = []object{{"exact": g.pick("one.example.com", "httpbin:8000", "httpbin")}, {"prefix": "one"}, {"regex": ".*example.*"}}[g.IntN(3)]
	}
	if g.one(10) {
		m["scheme"] = object{"exact": g.pick("http", "https")}
	}
	if g.one(10) {
		if gateway {
			m["port"] = []int{80, 8081, 8080}[g.IntN(3)]
		} else {
			m["port"] = []int{8000, 8001}[g.IntN(2)]
		}
	}
	return m
}

func (g generator) headerOperations() object {
	out := object{}
	side := func() object {
		ops := object{}
		if g.one(2) {
			ops["set"] = object{g.pick("x-set", "x-h", "host", "user-agent", "x-echo-headers", "server", "cache-control"): g.pick("s", "", "%PROTOCOL%", "100%% sure", "%REQ(x-h)%", "a, b")}
		}
		if g.one(2) {
			ops["add"] = object{g.pick("x-add", "x-h", "x-t", "set-cookie"): g.pick("more", "%REQ(:path)%", "", "v1")}
		}
		if g.one(2) {
			ops["remove"] = g.strings(2, "x-h", "x-t", "cookie", "content-type", "x-set")
		}
		return ops
	}
	if g.one(2) {
		out["request"] = side()
	}
	if g.one(2) {
		out["response"] = side()
	}
	return out
}

func (g generator) destination() object {
	switch g.IntN(6) {
	case 0:
		return object{"host": g.pick("reviews", "reviews.default.svc.cluster.local"), "subset": g.pick("v1", "v2", "v3"), "port": object{"number": 9080}}
	case 1:
		return object{"host": "orders.partner.svc.cluster.local", "port": object{"number": 8000}}
	case 2:
		return object{"host": "httpbin", "subset": g.pick("v1", "v2"), "port": object{"number": 8000}}
	case 3:
		return object{"host": "details", "subset": "v1", "port": object{"number": 9080}}
	case 4:
		if g.one(3) {
			return object{"host": g.pick("nowhere", "httpbin"), "subset": g.pick("none", "v1"), "port": object{"number": g.pick8(8000, 1234)}}
		}
		return object{"host": "mirror", "port": object{"number": 8000}}
	}
	return object{"host": "httpbin.default.svc.cluster.local", "port": object{"number": 8000}}
}

func (g generator) pick8(from ...int) int { return from[g.IntN(len(from))] }

// httpRoute is one of a VirtualService.
func (g generator) httpRoute(name string, gateway bool) object {
	r := object{"name": name}
	if !g.one(6) {
		r["match"] = some(g, 3, func() object { return g.httpMatch(gateway) })
	}
	switch g.IntN(8) {
	case 0:
		redirect := object{}
		if g.one(2) {
			redirect["uri"] = g.pick("/new", "/", "/new?x=y")
		}
		if g.one(2) {
			redirect["authority"] = g.pick("there.example.com", "there.example.com:444")
		}
		if g.one(3) {
			redirect["scheme"] = g.pick("http", "https")
		}
		if g.one(3) {
			redirect["port"] = g.pick8(80, 8443, 443)
		} else if g.one(3) {
			redirect["derivePort"] = g.pick("FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT")
		}
		if g.one(2) {
			redirect["redirectCode"] = g.pick8(301, 302, 303, 307, 308)
		}
		r["redirect"] = redirect
	case 1:
		status := g.pick8(200, 201, 204, 299, 304, 404, 503)
		direct := object{"status": status}
		if status != 204 && status != 304 && g.one(2) { // docs/differences.md
			direct["body"] = object{"string": g.pick("hello", "", "%PROTOCOL%")}
		}
		r["directResponse"] = direct
	default:
		g.forward(r)
	}
	if g.one(3) {
		if ops := g.headerOperations(); len(ops) > 0 {
			r["headers"] = ops
		}
	}
	return r
}

func (g generator) forward(r object) {
	route := list{object{"destination": g.destination()}}
	if g.one(4) {
		second := object{"destination": g.destination(), "weight": 0}
		route[0].(object)["weight"] = g.pick8(100, 1, 7)
		route = append(route, second)
	}
	if g.one(5) {
		if ops := g.headerOperations(); len(ops) > 0 {
			route[0].(object)["headers"] = ops
		}
	}
	r["route"] = route
	if g.one(4) {
		rewrite := object{}
		switch g.IntN(3) {
		case 0:
			rewrite["uri"] = g.pick("/", "/w", "/w/", "/w?x=1")
		case 1:
			rewrite["uriRegexRewrite"] = object{"match": g.pick("/a/(.*)", "/([a-z]+)/([0-9]+)"), "rewrite": g.pick("/r/\\1", "/x")}
		}
		if g.one(2) || len(rewrite) == 0 {
			rewrite["authority"] = g.pick("inner.example.com", "inner.example.com:99")
		}
		r["rewrite"] = rewrite
	}
	if g.one(6) {
		r["fault"] = object{"abort": object{"httpStatus": g.pick8(418, 500, 503), "percentage": object{"value": g.pick8(100, 0)}}}
	}
	if g.one(6) {
		r["retries"] = object{"attempts": g.pick8(0, 1, 3), "retryOn": g.pick("5xx", "gateway-error,retriable-4xx", "503", "retriable-status-codes,502", "reset")}
	}
	if g.one(8) {
		r["mirror"] = object{"host": "mirror", "port": object{"number": 8000}}
	}
	if g.one(6) {
		r["corsPolicy"] = g.cors()
	}
}

func (g generator) cors() object {
	out := object{"allowOrigins": some(g, 2, func() object {
		return []object{{"exact": "https://a.example"}, {"exact": "*"}, {"prefix": "https://"}, {"regex": "https://[ab]\\.example"}}[g.IntN(4)]
	})}
	if g.one(2) {
		out["allowMethods"] = g.strings(2, "GET", "POST", "PUT")
	}
	if g.one(2) {
		out["allowHeaders"] = g.strings(2, "x-h", "x-t")
	}
	if g.one(3) {
		out["exposeHeaders"] = g.strings(2, "x-e", "x-f")
	}
	if g.one(3) {
		out["maxAge"] = g.pick("24h", "1s")
	}
	if g.one(3) {
		out["allowCredentials"] = g.one(2)
	}
	if g.one(3) {
		out["unmatchedPreflights"] = g.pick("FORWARD", "IGNORE")
	}
	return out
}

func subsets() []object {
	rule := func(host string, versions ...string) object {
		var out list
		for _, v := range versions {
			out = append(out, object{"name": v, "labels": object{"version": v}})
		}
		return object{
			"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": object{"name": host, "namespace": "default"},
			"spec": object{"host": host, "subsets": out},
		}
	}
	return []object{rule("httpbin", "v1", "v2"), rule("reviews", "v1", "v2", "v3"), rule("details", "v1", "v2")}
}

func virtualService(name string, spec object) object {
	return object{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": object{"name": name, "namespace": "default"}, "spec": spec}
}

func (g generator) waypointVirtualService() ([]object, []object) {
	var routes list
	for i := range 2 + g.IntN(5) {
		routes = append(routes, g.httpRoute(fmt.Sprintf("r%d", i), false))
	}
	if g.one(2) {
		routes = append(routes, object{"route": list{object{"destination": object{"host": "httpbin", "subset": "v2"}}}})
	}
	objects := append(subsets(), virtualService("httpbin", object{"hosts": list{"httpbin"}, "http": routes}))
	return objects, g.requests(40, func(r object) {
		r["to"] = g.pick("httpbin:8000", "httpbin:8000", "httpbin:8001")
		if g.one(6) {
			r["host"] = g.pick("one.example.com", "httpbin", "httpbin.default.svc.cluster.local:8000")
		}
	})
}

func (g generator) gatewayVirtualServices() ([]object, []object) {
	hosts := []string{"one.example.com", "two.example.com", "*.example.com", "*"}
	server := func(port int, name string, hosts list) object {
		return object{"port": object{"number": port, "name": name, "protocol": "HTTP"}, "hosts": hosts}
	}
	servers := list{server(80, "http", g.strings(2, hosts...))}
	if g.one(2) {
		servers = append(servers, server(8081, "alt", g.strings(2, hosts...)))
	}
	if g.one(4) {
		servers = append(servers, server(80, "again", g.strings(1, "three.example.com", "default/two.example.com", "other/*")))
	}
	objects := append(subsets(), object{
		"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": object{"name": "shop", "namespace": "default"},
		"spec": object{"selector": object{"istio": "ingressgateway"}, "servers": servers},
	})
	for i := range 1 + g.IntN(3) {
		var routes list
		for j := range 1 + g.IntN(4) {
			routes = append(routes, g.httpRoute(fmt.Sprintf("v%dr%d", i, j), true))
		}
		objects = append(objects, virtualService(g.name("vs", i), object{
			"hosts": g.strings(2, hosts...), "gateways": list{g.pick("shop", "default/shop")}, "http": routes,
		}))
	}
	return objects, g.requests(40, func(r object) {
		r["via"] = "ingress"
		if g.one(4) {
			r["to"] = "8081"
		}
		r["host"] = g.pick("one.example.com", "two.example.com", "three.example.com", "x.example.com", "x.y.example.com", "ONE.example.com", "one.example.com:80", "other.org", "example.com")
	})
}

// requests come near what has been drawn.
func (g generator) requests(n int, more func(object)) []object {
	var out []object
	for i := range n {
		r := object{"name": fmt.Sprintf("request %d", i)}
		path := g.path()
		if g.one(3) {
			path += g.pick("?q=1", "?q=v1&page=12", "?page=x", "?q", "?", "?a=%2F")
		}
		r["path"] = path
		if g.one(4) {
			r["method"] = g.pick("POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
		}
		headers := object{}
		for range g.IntN(3) {
			headers[g.header()] = g.value()
		}
		if g.one(8) {
			headers["origin"] = g.pick("https://a.example", "https://b.example")
			if r["method"] == "OPTIONS" || g.one(2) {
				r["method"] = "OPTIONS"
				headers["access-control-request-method"] = g.pick("GET", "PUT")
				if g.one(2) {
					headers["access-control-request-headers"] = "x-h"
				}
			}
		}
		if g.one(10) {
			headers["x-echo-status"] = g.pick("503,200", "500,500,200", "404", "502,503,503,200")
		}
		if len(headers) > 0 {
			r["headers"] = headers
		}
		if g.one(5) {
			r["h2"] = !strings.Contains(path, "é") // docs/differences.md
		}
		if g.one(6) {
			r["as"] = g.pick("stranger", "productpage-v1", "ratings-v1")
		}
		more(r)
		if r["to"] == "httpbin:8001" {
			delete(headers, "x-echo-status") // docs/differences.md: a port without routes
		}
		r["name"] = strings.TrimSpace(fmt.Sprintf("%s %v %s", r["name"], orGet(r["method"]), path))
		out = append(out, r)
	}
	return out
}

func orGet(method any) any {
	if method == nil {
		return "GET"
	}
	return method
}
