package main

import "fmt"

// destinationRules are several for the same hosts, of several namespaces: which of them counts shows in who answers.
func (g generator) destinationRules(gateway bool) ([]object, []object) {
	var objects []object
	for i := range 2 + g.IntN(4) {
		namespace := g.pick("default", "default", "istio-system", "istio-system", "other", "partner")
		spec := object{"host": g.pick("httpbin.default.svc.cluster.local", "reviews.default.svc.cluster.local", "httpbin", "reviews", "*.default.svc.cluster.local", "*.local", "*.cluster.local", "orders.partner.svc.cluster.local")}
		if g.one(3) {
			spec["exportTo"] = []any{g.pick("*", ".", "default", "istio-system")}
		}
		if g.one(6) {
			selector := []object{{"istio": "ingressgateway"}, {"app": "curl"}, {}}[g.IntN(3)]
			if !gateway {
				selector = object{"app": "curl"} // docs/differences.md
			}
			spec["workloadSelector"] = object{"matchLabels": selector}
		}
		if g.one(3) {
			spec["trafficPolicy"] = g.trafficPolicy()
		}
		if !g.one(5) {
			var subsets list
			for _, name := range []string{"a", "b"} {
				if g.one(4) {
					continue
				}
				s := object{"name": name, "labels": object{"version": g.pick("v1", "v2", "v3", "v9")}}
				if g.one(5) {
					s["labels"] = object{"app": g.pick("httpbin", "reviews"), "version": g.pick("v1", "v2")}
				}
				if g.one(8) {
					delete(s, "labels")
				}
				if g.one(5) {
					s["trafficPolicy"] = g.trafficPolicy()
				}
				subsets = append(subsets, s)
			}
			if len(subsets) > 0 {
				spec["subsets"] = subsets
			}
		}
		objects = append(objects, object{
			"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": object{"name": g.name("rule", i), "namespace": namespace}, "spec": spec,
		})
	}
	var routes list
	hosts := map[string]string{"h": "httpbin.default.svc.cluster.local", "r": "reviews.default.svc.cluster.local", "o": "orders.partner.svc.cluster.local"}
	ports := map[string]int{"h": 8000, "r": 9080, "o": 8000}
	for _, k := range []string{"h", "r", "o"} {
		for _, subset := range []string{"a", "b", ""} {
			d := object{"host": hosts[k], "port": object{"number": ports[k]}}
			if subset != "" {
				d["subset"] = subset
			}
			routes = append(routes, object{"match": list{object{"uri": object{"prefix": fmt.Sprintf("/%s%s/", k, subset)}}}, "route": list{object{"destination": d}}})
		}
	}
	via := func(r object) { r["to"] = "httpbin:8000" }
	if gateway {
		via = func(r object) { r["via"], r["host"] = "ingress", "one.example.com" }
		objects = append(objects, shop("default", list{server(80, "http", "HTTP", "*")}), virtualService("all", object{"hosts": list{"*"}, "gateways": list{"shop"}, "http": routes}))
	} else {
		objects = append(objects, virtualService("all", object{"hosts": list{"httpbin"}, "http": routes}))
	}
	var requests []object
	for _, p := range []string{"/ha/", "/hb/", "/h/", "/ra/", "/rb/", "/r/", "/oa/", "/o/"} {
		r := object{"name": p, "path": p, "repeat": 14, "met": true, "headers": object{"x-h": g.value()}}
		via(r)
		requests = append(requests, r)
	}
	return objects, requests
}

// trafficPolicy is one that shows in who answers.
func (g generator) trafficPolicy() object {
	hash := func() object {
		return object{"consistentHash": object{"httpHeaderName": g.pick("x-h", "x-none", "x-echo-key")}}
	}
	switch g.IntN(4) {
	case 0:
		return object{"loadBalancer": hash()}
	case 1:
		return object{"loadBalancer": object{"simple": g.pick("ROUND_ROBIN", "LEAST_REQUEST", "RANDOM")}}
	case 2:
		return object{"loadBalancer": hash(), "portLevelSettings": list{object{"port": object{"number": g.pick8(8000, 9080)}, "loadBalancer": object{"simple": "ROUND_ROBIN"}}}}
	}
	return object{"portLevelSettings": list{object{"port": object{"number": g.pick8(8000, 9080, 8001)}, "loadBalancer": hash()}}}
}

func server(port int, name, protocol string, hosts ...string) object {
	var all list
	for _, h := range hosts {
		all = append(all, h)
	}
	return object{"port": object{"number": port, "name": name, "protocol": protocol}, "hosts": all}
}

// shop is the Gateway of the ingress proxies.
func shop(namespace string, servers list) object {
	return object{
		"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": object{"name": "shop", "namespace": namespace},
		"spec": object{"selector": object{"istio": "ingressgateway"}, "servers": servers},
	}
}
