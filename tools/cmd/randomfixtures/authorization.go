package main

func (g generator) authorization() ([]object, []object) {
	var objects []object
	objects = append(objects, subsets()...)
	objects = append(objects, virtualService("httpbin", object{"hosts": list{"httpbin"}, "http": list{object{"route": list{object{"destination": object{"host": "httpbin", "subset": "v1"}}}}}}))
	for i := range 1 + g.IntN(3) {
		spec := object{"targetRefs": list{object{"kind": "Service", "group": "", "name": "httpbin"}}}
		if a := g.pick("", "ALLOW", "DENY"); a != "" {
			spec["action"] = a
		}
		if !g.one(10) {
			spec["rules"] = some(g, 3, g.rule)
		}
		objects = append(objects, object{
			"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": object{"name": g.name("p", i), "namespace": "default"}, "spec": spec,
		})
	}
	return objects, g.requests(50, func(r object) {
		r["to"] = g.pick("httpbin:8000", "httpbin:8000", "httpbin:8001")
		if g.one(6) {
			r["host"] = g.pick("one.example.com", "httpbin", "ONE.example.com:8000")
		}
		if g.one(2) {
			r["as"] = g.pick("stranger", "productpage-v1", "ratings-v1", "curl")
		}
	})
}

func (g generator) rule() object {
	rule := object{}
	if g.one(2) {
		rule["from"] = some(g, 2, func() object { return object{"source": g.source()} })
	}
	if !g.one(4) {
		rule["to"] = some(g, 2, func() object { return object{"operation": g.operation()} })
	}
	if g.one(3) {
		rule["when"] = some(g, 2, g.condition)
	}
	return rule
}

func (g generator) source() object {
	out := object{}
	for len(out) == 0 || g.one(4) {
		not := g.pick("", "", "not")
		key := func(name string) string {
			if not == "" {
				return name
			}
			return "not" + string(name[0]-'a'+'A') + name[1:]
		}
		switch g.IntN(3) { // addresses of clients need Istio's own build of Envoy
		case 0:
			out[key("principals")] = g.strings(2, "cluster.local/ns/default/sa/curl", "cluster.local/ns/other/*", "*/sa/bookinfo-productpage", "*", "cluster.local/ns/default/sa/cur")
		case 1:
			out[key("namespaces")] = g.strings(2, "default", "other", "def*", "*er", "*")
		default:
			out[key("serviceAccounts")] = g.strings(2, "curl", "default/curl", "other/stranger", "bookinfo-productpage")
		}
	}
	if out["principals"] != nil || out["notPrincipals"] != nil || out["namespaces"] != nil || out["notNamespaces"] != nil {
		delete(out, "serviceAccounts") // may not be together
		delete(out, "notServiceAccounts")
	}
	return out
}

func (g generator) operation() object {
	out := object{}
	for len(out) == 0 || g.one(2) {
		not := g.one(4)
		set := func(name string, values list) {
			if not {
				name = "not" + string(name[0]-'a'+'A') + name[1:]
			}
			out[name] = values
		}
		switch g.IntN(6) {
		case 0:
			set("methods", g.strings(2, "GET", "POST", "P*", "*", "DELETE", "HEAD"))
		case 1:
			set("hosts", g.strings(2, "httpbin:8000", "httpbin*", "*.example.com", "one.example.com", "ONE.example.com", "*"))
		case 2:
			set("ports", g.strings(2, "8000", "8001", "8080"))
		default:
			set("paths", g.strings(3, "/a", "/a/*", "*.css", "/a/b", "/", "/b/{*}", "/{**}", "/a/{*}/c", "*", "/ab*", "/A/b", "/a/"))
		}
	}
	return out
}

func (g generator) condition() object {
	var key string
	var values list
	switch g.IntN(5) {
	case 0, 1:
		key, values = "request.headers["+g.pick("x-h", "x-t", "end-user", "User-Agent", "cookie")+"]", g.strings(2, "v1", "v*", "*1", "*", "jason", "1")
	case 2:
		key, values = "source.namespace", g.strings(2, "default", "other", "o*")
	case 3:
		key, values = "source.principal", g.strings(2, "cluster.local/ns/default/sa/curl", "*", "*stranger")
	default:
		key, values = "destination.port", g.strings(2, "8000", "8080", "8001")
	}
	out := object{"key": key}
	if g.one(3) {
		out["notValues"] = values
	} else {
		out["values"] = values
	}
	return out
}
