package main

import "fmt"

// grpcRoutes are of a Gateway, or of a Service behind a waypoint.
func (g generator) grpcRoutes(way string) ([]object, []object) {
	var objects []object
	parent := object{"group": "", "kind": "Service", "name": "greeter"}
	if way == "gateway" {
		objects = append(objects, object{
			"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": object{"name": "bookinfo-gateway", "namespace": "default"},
			"spec": object{"gatewayClassName": "istio", "listeners": list{object{"name": "http", "port": 80, "protocol": "HTTP"}}},
		})
		parent = object{"name": "bookinfo-gateway"}
	}
	for i := range 1 + g.IntN(2) {
		spec := object{"parentRefs": list{parent}}
		if way == "gateway" && g.one(2) {
			spec["hostnames"] = g.strings(2, "one.example.com", "*.example.com")
		}
		var rules list
		for j := range 1 + g.IntN(4) {
			rules = append(rules, g.grpcRule(fmt.Sprintf("r%dr%d", i, j)))
		}
		spec["rules"] = rules
		objects = append(objects, object{
			"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute", "metadata": object{"name": g.name("grpc", i), "namespace": "default"}, "spec": spec,
		})
	}
	return objects, g.requests(40, func(r object) {
		if way == "gateway" {
			r["via"], r["host"] = "gateway", g.pick("one.example.com", "two.example.com", "other.org")
		} else {
			r["to"] = "greeter:7070"
		}
		r["path"] = g.pick("/shop.Books/Get", "/shop.Books/List", "/shop.Films/Get", "/Books/Get", "/shop.Books/Get/x")
		delete(r, "body")
		headers, _ := r["headers"].(object)
		if headers == nil {
			headers = object{}
			r["headers"] = headers
		}
		delete(headers, "origin")
		r["method"], r["h2"] = "POST", true
		if !g.one(8) {
			headers["content-type"], headers["te"] = "application/grpc", "trailers"
		}
	})
}

func (g generator) grpcRule(mark string) object {
	rule := object{"matches": list{object{}}} // never none: docs/differences.md
	if !g.one(6) {
		rule["matches"] = some(g, 2, func() object {
			out := object{}
			if !g.one(5) {
				method := object{}
				regular := g.one(3)
				if regular {
					method["type"] = "RegularExpression"
				}
				if !g.one(4) {
					method["service"] = g.pick("shop.Books", "shop.Films", "Books")
					if regular {
						method["service"] = g.pick("shop\\.[A-Z][a-z]+", "shop.Books", ".*")
					}
				}
				if !g.one(4) || method["service"] == nil {
					method["method"] = g.pick("Get", "List")
					if regular {
						method["method"] = g.pick("[A-Z].*", "Ge.", "Get") // not a|b: Istio puts both in one expression as they are
					}
				}
				out["method"] = method
			}
			if g.one(3) {
				h := object{"name": g.pick("x-h", "x-t"), "value": g.value()}
				if g.one(3) {
					h["type"], h["value"] = "RegularExpression", g.pick("v[0-9]+", "v1|v2")
				}
				out["headers"] = list{h}
			}
			return out
		})
	}
	filters := list{object{"type": "ResponseHeaderModifier", "responseHeaderModifier": object{"add": list{object{"name": "x-rule", "value": mark}}}}}
	if g.one(3) {
		filters = append(filters, object{"type": "RequestHeaderModifier", "requestHeaderModifier": g.modifier()})
	}
	if g.one(6) {
		filters = append(filters, object{"type": "RequestMirror", "requestMirror": object{"backendRef": object{"name": "mirror", "port": 8000}}})
	}
	rule["filters"] = filters
	if g.one(15) {
		return rule
	}
	switch g.IntN(6) {
	case 0:
		rule["backendRefs"] = list{object{"name": "greeter", "port": 7070, "weight": 5}, object{"name": "httpbin", "port": 8000, "weight": 0}}
	case 1:
		rule["backendRefs"] = list{object{"name": g.pick("nowhere", "greeter"), "port": 1234}}
	case 2:
		rule["backendRefs"] = list{object{"name": "httpbin", "port": 8000}}
	default:
		rule["backendRefs"] = list{object{"name": "greeter", "port": 7070}}
	}
	return rule
}
