package main

import "fmt"

// delegates are VirtualServices at gateways whose routes are in others.
func (g generator) delegates() ([]object, []object) {
	objects := append(subsets(), object{
		"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": object{"name": "shop", "namespace": "default"},
		"spec": object{"selector": object{"istio": "ingressgateway"}, "servers": list{object{"port": object{"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": list{"*"}}}},
	})
	var routes list
	for i := range 1 + g.IntN(3) {
		name := g.name("delegate", i)
		r := object{"name": fmt.Sprintf("root%d", i), "delegate": object{"name": name, "namespace": g.pick("default", "")}}
		if !g.one(4) {
			r["match"] = some(g, 2, g.rootMatch)
		}
		if g.one(3) {
			if ops := g.headerOperations(); len(ops) > 0 {
				r["headers"] = ops
			}
		}
		if g.one(4) {
			r["timeout"] = "5s"
		}
		if g.one(4) {
			r["retries"] = object{"attempts": g.pick8(0, 2), "retryOn": "5xx"}
		}
		if g.one(5) {
			r["rewrite"] = object{"authority": "root.example.com"}
		}
		if g.one(5) {
			r["corsPolicy"] = g.cors()
		}
		routes = append(routes, r)
		var own list
		for j := range 1 + g.IntN(3) {
			own = append(own, g.httpRoute(fmt.Sprintf("d%dr%d", i, j), true))
		}
		objects = append(objects, virtualService(name, object{"http": own}))
	}
	if g.one(2) {
		routes = append(routes, g.httpRoute("rest", true))
	}
	objects = append(objects, virtualService(g.name("root", 0), object{"hosts": list{"*"}, "gateways": list{"shop"}, "http": routes}))
	return objects, g.requests(40, func(r object) {
		r["via"] = "ingress"
		r["host"] = g.pick("one.example.com", "two.example.com", "other.org")
	})
}

// rootMatch is one that a delegate's can be within.
func (g generator) rootMatch() object {
	m := object{}
	if !g.one(5) {
		m["uri"] = object{g.pick("prefix", "prefix", "prefix", "exact"): g.pick("/a", "/a/b", "/", "/b", "/a/")}
	}
	if g.one(4) {
		m["headers"] = g.headerMatches(1)
	}
	if g.one(6) {
		m["method"] = object{"exact": g.pick("GET", "POST")}
	}
	if g.one(8) {
		m["ignoreUriCase"] = true
	}
	if g.one(8) {
		m["withoutHeaders"] = object{"x-t": object{"exact": "v1"}}
	}
	if g.one(8) {
		m["queryParams"] = object{"q": object{"exact": "1"}}
	}
	return m
}
