package main

import "fmt"

// serviceEntries are hosts of which several entries tell, at gateways and at a waypoint.
func (g generator) serviceEntries(gateway bool) ([]object, []object) {
	hosts := []string{"ext.example.com", "two.example.com", "*.wild.example.com", "httpbin.default.svc.cluster.local"}
	var objects []object
	taken := map[string]bool{} // a host twice in a namespace: docs/differences.md
	for i := range 1 + g.IntN(3) {
		namespace := g.pick("default", "default", "istio-system", "other")
		meta := object{"name": g.name("entry", i), "namespace": namespace}
		spec := object{"hosts": list{g.pick(hosts[:3]...)}, "location": g.pick("MESH_EXTERNAL", "MESH_INTERNAL")}
		if gateway && g.one(4) {
			spec["hosts"] = g.strings(2, hosts[:3]...)
		}
		if !gateway {
			meta["namespace"], spec["hosts"] = "default", list{hosts[i%2]}
			meta["labels"] = object{"istio.io/use-waypoint": "waypoint"}
			spec["addresses"] = list{fmt.Sprintf("240.240.9.%d", i+1)}
			if i > 1 {
				continue
			}
		}
		claims := false
		for _, h := range spec["hosts"].([]any) {
			claim := fmt.Sprint(meta["namespace"], "/", h)
			claims, taken[claim] = claims || taken[claim], true
		}
		if claims {
			continue
		}
		ports := list{object{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 8080}}
		if g.one(3) {
			ports = append(ports, object{"number": 8080, "name": "http-alt", "protocol": g.pick("HTTP", "HTTP2", "TCP")})
		}
		spec["ports"] = ports
		switch g.IntN(4) {
		case 0:
			spec["workloadSelector"] = object{"labels": object{"app": g.pick("httpbin", "legacy", "mirror", "none")}}
			spec["resolution"] = "STATIC"
		case 1:
			spec["resolution"] = "STATIC"
		default:
			spec["resolution"] = "STATIC"
			var endpoints list
			for range 1 + g.IntN(2) {
				e := object{"address": g.pick("10.77.1.15", "10.77.1.15", "10.77.1.23")}
				if g.one(3) {
					e["ports"] = object{"http": g.pick8(8080, 8080, 9999)}
				}
				if g.one(2) {
					e["labels"] = object{"version": g.pick("v1", "v2")}
				}
				if g.one(4) {
					e["weight"] = g.pick8(1, 5)
				}
				endpoints = append(endpoints, e)
			}
			spec["endpoints"] = endpoints
		}
		if gateway && spec["endpoints"] == nil && spec["workloadSelector"] == nil && g.one(2) {
			spec["resolution"] = "NONE"
		}
		if gateway && g.one(4) {
			spec["exportTo"] = []any{g.pick("*", ".", "istio-system", "default")}
		}
		objects = append(objects, object{"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": meta, "spec": spec})
	}
	for i, h := range hosts[:2] {
		if g.one(3) {
			objects = append(objects, object{
				"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": object{"name": g.name("rule", i), "namespace": g.pick("default", "istio-system")},
				"spec": object{"host": h, "subsets": list{object{"name": "v1", "labels": object{"version": "v1"}}, object{"name": "v2", "labels": object{"version": "v2"}}}},
			})
		}
	}
	var routes list
	for i, h := range hosts {
		for _, subset := range []string{"v1", ""} {
			d := object{"host": h}
			if h == "*.wild.example.com" {
				d["host"] = g.pick(h, "x.wild.example.com")
				if d["host"] == h {
					d["host"] = "y.wild.example.com" // a destination has no wildcard
				}
			}
			if i == 3 {
				d["port"] = object{"number": 8000}
			} else if g.one(2) {
				d["port"] = object{"number": g.pick8(80, 8080)}
			}
			if subset != "" {
				d["subset"] = subset
			}
			routes = append(routes, object{"match": list{object{"uri": object{"prefix": fmt.Sprintf("/%d%s/", i, subset)}}}, "route": list{object{"destination": d}}})
		}
	}
	if gateway {
		namespace := g.pick("default", "istio-system")
		o := virtualService("all", object{"hosts": list{"*"}, "gateways": list{"default/shop"}, "http": routes})
		o["metadata"].(object)["namespace"] = namespace
		objects = append(objects, shop("default", list{server(80, "http", "HTTP", "*")}), o)
	} else if g.one(2) {
		objects = append(objects, virtualService("ext", object{"hosts": g.strings(2, hosts[0], hosts[1]), "http": routes}))
	}
	return objects, g.requests(24, func(r object) {
		r["path"] = g.pick("/0/", "/0v1/", "/1/", "/1v1/", "/2/", "/3/")
		r["host"] = g.pick("ext.example.com", "two.example.com", "x.wild.example.com")
		if gateway {
			r["via"] = "ingress"
		} else {
			r["to"] = g.pick("240.240.9.1:80", "240.240.9.2:80", "240.240.9.1:8080")
			if headers, ok := r["headers"].(object); ok {
				delete(headers, "x-echo-status") // docs/differences.md: a port without routes
			}
		}
	})
}
