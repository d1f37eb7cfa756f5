package main

import "fmt"

// httpRoutes are of a Gateway, or of a Service behind a waypoint.
func (g generator) httpRoutes(way string) ([]object, []object) {
	var objects []object
	parent := object{"group": "", "kind": "Service", "name": "httpbin"}
	if way == "gateway" {
		// One listener only: docs/differences.md.
		listeners := list{object{"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": object{"namespaces": object{"from": g.pick("All", "Same")}}}}
		objects = append(objects, object{
			"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": object{"name": "bookinfo-gateway", "namespace": "default"},
			"spec": object{"gatewayClassName": "istio", "listeners": listeners},
		})
		parent = object{"name": "bookinfo-gateway"}
	} else if g.one(3) {
		parent["port"] = 8000
	}
	for i := range 1 + g.IntN(3) {
		p := object{}
		for k, v := range parent {
			p[k] = v
		}
		spec := object{"parentRefs": list{p}}
		if way == "gateway" && !g.one(3) {
			spec["hostnames"] = g.strings(2, "one.example.com", "two.example.com", "*.example.com", "other.org")
		}
		var rules list
		for j := range 1 + g.IntN(4) {
			rules = append(rules, g.routeRule(fmt.Sprintf("r%dr%d", i, j)))
		}
		spec["rules"] = rules
		objects = append(objects, object{
			"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
			"metadata": object{"name": g.name("route", i), "namespace": "default"}, "spec": spec,
		})
	}
	return objects, g.requests(40, func(r object) {
		if way == "gateway" {
			r["via"] = "gateway"
			r["host"] = g.pick("one.example.com", "two.example.com", "x.example.com", "x.y.example.com", "other.org", "one.example.com:80", "nobody.org")
			return
		}
		r["to"] = g.pick("httpbin:8000", "httpbin:8000", "httpbin:8001")
	})
}

func (g generator) routeRule(mark string) object {
	rule := object{}
	if !g.one(6) {
		rule["matches"] = some(g, 3, g.routeMatch)
	}
	filters := list{object{"type": "ResponseHeaderModifier", "responseHeaderModifier": object{"add": list{object{"name": "x-rule", "value": mark}}}}}
	if g.one(3) {
		filters = append(filters, object{"type": "RequestHeaderModifier", "requestHeaderModifier": g.modifier()})
	}
	redirects := false
	prefixOnly := g.onlyPrefixes(rule)
	switch g.IntN(6) {
	case 0:
		redirects = true
		redirect := object{}
		if g.one(2) {
			redirect["hostname"] = "there.example.com"
		}
		if g.one(2) {
			redirect["path"] = g.pathModifier(prefixOnly)
		}
		if g.one(3) {
			redirect["port"] = g.pick8(80, 8443, 443)
		}
		if g.one(3) {
			redirect["scheme"] = g.pick("http", "https")
		}
		if g.one(2) {
			redirect["statusCode"] = g.pick8(301, 302, 303, 307, 308)
		}
		filters = append(filters, object{"type": "RequestRedirect", "requestRedirect": redirect})
	case 1:
		rewrite := object{}
		if g.one(2) {
			rewrite["hostname"] = "inner.example.com"
		}
		if g.one(2) || len(rewrite) == 0 {
			rewrite["path"] = g.pathModifier(prefixOnly)
		}
		filters = append(filters, object{"type": "URLRewrite", "urlRewrite": rewrite})
	}
	if g.one(6) {
		filters = append(filters, object{"type": "RequestMirror", "requestMirror": object{"backendRef": object{"name": "mirror", "port": 8000}}})
	}
	if g.one(5) {
		cors := object{"allowOrigins": []list{{"*"}, g.strings(2, "https://a.example", "https://*.example")}[g.IntN(2)]}
		if g.one(2) {
			cors["allowMethods"] = g.strings(2, "GET", "PUT")
		}
		if g.one(2) {
			cors["allowHeaders"] = g.strings(2, "x-h", "x-t")
		}
		if g.one(3) {
			cors["allowCredentials"] = true
		}
		if g.one(3) {
			cors["maxAge"] = 60
		}
		if g.one(3) {
			cors["exposeHeaders"] = g.strings(2, "x-e", "x-f")
		}
		filters = append(filters, object{"type": "CORS", "cors": cors})
	}
	rule["filters"] = filters
	if redirects {
		return rule
	}
	backend := func(weight int) object {
		b := []object{{"name": "httpbin", "port": 8000}, {"name": "reviews-v2", "port": 9080}, {"name": "details-v1", "port": 9080}, {"name": "mirror", "port": 8000}}[g.IntN(4)]
		if weight >= 0 {
			b["weight"] = weight
		}
		return b
	}
	refs := list{backend(-1)}
	switch g.IntN(8) {
	case 0:
		refs = list{backend(5), backend(0)}
	case 1:
		refs = list{object{"name": g.pick("nowhere", "httpbin"), "port": 1234}}
	case 2:
		refs = list{backend(0)}
	case 3:
		b := backend(-1)
		b["filters"] = list{object{"type": "RequestHeaderModifier", "requestHeaderModifier": g.modifier()}}
		refs = list{b}
	}
	rule["backendRefs"] = refs // without any: docs/differences.md
	if g.one(8) {
		rule["timeouts"] = object{"request": "5s"}
	}
	return rule
}

// onlyPrefixes is whether all matches are of prefixes, which replacing one needs.
func (g generator) onlyPrefixes(rule object) bool {
	matches, _ := rule["matches"].(list)
	for _, m := range matches {
		path, _ := m.(object)["path"].(object)
		if path["type"] != "PathPrefix" || path["value"] == "/" { // docs/differences.md
			return false
		}
	}
	return len(matches) == 1
}

func (g generator) pathModifier(prefix bool) object {
	if prefix && g.one(2) {
		return object{"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}
	}
	return object{"type": "ReplaceFullPath", "replaceFullPath": g.pick("/full", "/", "/full/x")}
}

func (g generator) modifier() object {
	out := object{}
	pair := func(names ...string) list {
		return list{object{"name": g.pick(names...), "value": g.pick("1", "two words", "v1")}}
	}
	if g.one(2) {
		out["set"] = pair("x-set", "x-h", "user-agent")
	}
	if g.one(2) {
		out["add"] = pair("x-add", "x-t", "cookie")
	}
	if g.one(2) || len(out) == 0 {
		out["remove"] = g.strings(2, "end-user", "X-Gone", "x-other")
	}
	return out
}

func (g generator) routeMatch() object {
	m := object{}
	switch g.IntN(5) {
	case 0, 1:
		m["path"] = object{"type": "PathPrefix", "value": g.pick("/", "/a", "/a/", "/a/b", "/b")}
	case 2:
		m["path"] = object{"type": "Exact", "value": g.pick("/a", "/a/b", "/b", "/b/1", "/a/")}
	case 3:
		m["path"] = object{"type": "RegularExpression", "value": g.pick("/a.*", "/b/[0-9]+", "/[ab]", ".*css")}
	}
	if g.one(3) {
		var headers list
		for _, h := range g.strings(2, "x-h", "x-t", "end-user", "X-H2") {
			if g.one(3) {
				headers = append(headers, object{"type": "RegularExpression", "name": h, "value": g.pick("v[0-9]+", "v1|v2", "v.*")})
			} else {
				headers = append(headers, object{"name": h, "value": g.pick("v1", "v2", "jason", "x y")})
			}
		}
		m["headers"] = headers
	}
	if g.one(4) {
		m["queryParams"] = list{object{"name": g.pick("q", "page"), "value": g.pick("1", "v1", "12")}}
		if g.one(3) {
			m["queryParams"] = list{object{"type": "RegularExpression", "name": "page", "value": "[0-9]+"}}
		}
	}
	if g.one(5) {
		m["method"] = g.pick("GET", "POST", "PUT")
	}
	return m
}
