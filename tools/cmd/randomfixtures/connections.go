package main

import (
	"fmt"
	"strings"
)

// connections are gateways' routes of TLS that is passed through, by name, and of TCP, by port.
func (g generator) connections() ([]object, []object) {
	names := []string{"one.example.com", "two.example.com", "*.example.com", "*.two.example.com", "*", "vault.example.com", "*.com"}
	var servers list
	for i := range 1 + g.IntN(3) {
		s := object{"port": object{"number": g.pick8(8443, 8443, 8444), "name": fmt.Sprintf("tls%d", i), "protocol": "TLS"}, "tls": object{"mode": "PASSTHROUGH"}, "hosts": g.strings(1, names...)}
		servers = append(servers, s)
	}
	servers = append(servers, server(8083, "tcp", "TCP", "*"))
	if g.one(2) {
		servers = append(servers, server(8084, "tcp-two", g.pick("TCP", "HTTP"), "*"))
	}
	namespace := g.pick("default", "istio-system")
	objects := []object{shop(namespace, servers)}
	for i := range 1 + g.IntN(3) {
		spec := object{"gateways": list{namespace + "/shop"}}
		var hosts, tls, tcp list
		hosts = g.strings(3, names...)
		for range g.IntN(4) {
			match := object{"sniHosts": g.strings(1, within(hosts, names)...)}
			if g.one(4) {
				match["port"] = g.pick8(8443, 8444)
			}
			if g.one(8) {
				match["gateways"] = list{g.pick(namespace+"/shop", "mesh")}
			}
			r := object{"match": list{match}, "route": list{object{"destination": g.tlsDestination()}}}
			if g.one(6) {
				r["route"] = list{object{"destination": g.tlsDestination(), "weight": 100}, object{"destination": g.tlsDestination(), "weight": 0}}
			}
			tls = append(tls, r)
		}
		for range g.IntN(3) {
			r := object{"route": list{object{"destination": g.tcpDestination()}}}
			if !g.one(4) {
				match := object{"port": g.pick8(8083, 8084)}
				if g.one(8) {
					match["gateways"] = list{g.pick(namespace+"/shop", "mesh")}
				}
				r["match"] = list{match}
			}
			tcp = append(tcp, r)
		}
		if len(tls) > 0 {
			spec["tls"] = tls
		}
		if len(tcp) > 0 {
			spec["tcp"] = tcp
		}
		if g.one(4) || len(tls)+len(tcp) == 0 {
			spec["http"] = list{object{"route": list{object{"destination": object{"host": "httpbin.default.svc.cluster.local", "port": object{"number": 8000}}}}}}
		}
		spec["hosts"] = hosts
		o := virtualService(g.name("vs", i), spec)
		o["metadata"].(object)["namespace"] = g.pick("default", "default", "istio-system")
		objects = append(objects, o)
	}
	var requests []object
	for _, port := range []string{"8443", "8444"} {
		for _, name := range []string{"one.example.com", "two.example.com", "x.example.com", "x.two.example.com", "vault.example.com", "other.org", "ONE.example.com", "-"} {
			r := object{"name": port + " " + name, "via": "ingress", "to": port, "tls": name, "path": "/", "host": "some.example.com"}
			if g.one(3) {
				r["alpn"] = list{"http/1.1"}
			}
			requests = append(requests, r)
		}
	}
	for _, port := range []string{"8083", "8084"} {
		requests = append(requests, object{"name": port + " line", "via": "ingress", "to": port, "tcp": "hello"})
		requests = append(requests, object{"name": port + " http", "via": "ingress", "to": port, "path": "/a", "host": g.pick("one.example.com", "two.example.com")})
	}
	return objects, requests
}

// within are those of the names that one of the hosts comprises.
func within(hosts list, names []string) []string {
	var out []string
	for _, name := range append(names, "x.example.com") {
		for _, h := range hosts {
			if suffix, wild := strings.CutPrefix(h.(string), "*"); name == h || wild && strings.HasSuffix(name, suffix) {
				out = append(out, name)
				break
			}
		}
	}
	return out
}

func (g generator) tlsDestination() object {
	return object{"host": g.pick("vault", "secure", "vault", "nowhere") + ".default.svc.cluster.local", "port": object{"number": 443}}
}

func (g generator) tcpDestination() object {
	if g.one(2) {
		return object{"host": "tcp-echo.default.svc.cluster.local", "port": object{"number": 9000}}
	}
	return object{"host": g.pick("any.default.svc.cluster.local", "any.default.svc.cluster.local", "nowhere.default.svc.cluster.local"), "port": object{"number": 6000}}
}
