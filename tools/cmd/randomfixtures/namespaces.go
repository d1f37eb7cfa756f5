package main

import "fmt"

// namespaces are VirtualServices of several namespaces that want the same hosts of the same gateways.
func (g generator) namespaces() ([]object, []object) {
	home := g.pick("default", "istio-system")
	hosts := []string{"one.example.com", "two.example.com", "*.example.com", "*"}
	restricted := []string{"default/one.example.com", "./two.example.com", "other/*", "*/one.example.com", "default/*.example.com", "./*", "istio-system/*"}
	servers := list{object{"port": object{"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": g.strings(3, append(restricted, hosts...)...)}}
	if g.one(2) {
		servers = append(servers, object{"port": object{"number": g.pick8(80, 8081), "name": "second", "protocol": "HTTP"}, "hosts": g.strings(2, append(restricted, hosts...)...)})
	}
	objects := append(subsets(), shop(home, servers))
	if g.one(3) {
		other := shop(g.pick("default", "istio-system", "other"), list{object{"port": object{"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": g.strings(2, append(restricted, hosts...)...)}})
		other["metadata"].(object)["name"] = "second"
		objects = append(objects, other)
	}
	for i := range 2 + g.IntN(3) {
		namespace := g.pick("default", "other", "istio-system")
		spec := object{"hosts": g.strings(2, hosts...), "gateways": g.strings(2, home+"/shop", home+"/shop", "shop", "second", "default/second", "mesh")}
		if g.one(3) {
			spec["exportTo"] = []any{g.pick("*", ".", "istio-system", "default")}
		}
		var routes list
		for j := range 1 + g.IntN(3) {
			r := object{"name": fmt.Sprintf("v%dr%d", i, j), "headers": object{"response": object{"set": object{"x-by": fmt.Sprintf("%d.%d", i, j)}}}}
			if !g.one(3) {
				r["match"] = list{object{"uri": object{"prefix": g.plainPath()}}}
			}
			r["route"] = list{object{"destination": object{
				"host": g.pick("httpbin", "httpbin.default", "httpbin.default.svc.cluster.local", "httpbin.default.svc.cluster.local", "reviews.default.svc.cluster.local", "orders.partner.svc.cluster.local", "orders"),
				"port": object{"number": g.pick8(8000, 8000, 9080)},
			}}}
			routes = append(routes, r)
		}
		spec["http"] = routes
		o := virtualService(g.name("vs", i), spec)
		o["metadata"].(object)["namespace"] = namespace
		objects = append(objects, o)
	}
	return objects, g.requests(40, func(r object) {
		r["via"] = "ingress"
		if g.one(4) {
			r["to"] = "8081"
		}
		r["host"] = g.pick("one.example.com", "two.example.com", "three.example.com", "x.y.example.com", "other.org")
	})
}
