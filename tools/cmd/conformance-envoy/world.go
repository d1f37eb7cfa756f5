package main

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// workload is a pod: one that serves, one that asks, or one that is a proxy.
type workload struct {
	namespace, name, account string
	ip                       netip.Addr
	labels                   map[string]string
	ports                    []int
	// plain pods take connections as they are; others by HBONE only.
	plain bool
	// proxy pods are run elsewhere.
	proxy bool
	// sidecar pods take mutual TLS of the mesh at their ports.
	sidecar bool
	// tls is the name in the certificate of an application that speaks TLS itself.
	tls string
	// impostor has the address of the pod, but another account's certificate.
	impostor bool
}

// service is a Service with a virtual address.
type service struct {
	namespace, name string
	vip             netip.Addr
	selector        string // value of the label app
	version         string // value of the label version, if that selects too
	ports           []servicePort
	labels          map[string]string
	annotations     map[string]string
	// local services keep traffic on the node.
	local bool
}

type servicePort struct {
	port, target int
	name         string
}

const gatewayNameLabel = "gateway.networking.k8s.io/gateway-name"

// workloads of every fixture.
func workloads() []workload {
	var out []workload
	backend := func(namespace, app, version string, ports ...int) *workload {
		name, labels := app, map[string]string{"app": app}
		if version != "" {
			name, labels["version"] = app+"-"+version, version
		}
		out = append(out, workload{
			namespace: namespace, name: name, account: "bookinfo-" + app, labels: labels, ports: ports,
			ip: netip.AddrFrom4([4]byte{10, 77, 1, byte(len(out) + 1)}),
		})
		return &out[len(out)-1]
	}
	backend("default", "productpage", "v1", 9080)
	backend("default", "details", "v1", 9080)
	backend("default", "details", "v2", 9080)
	backend("default", "ratings", "v1", 9080)
	backend("default", "ratings", "v2", 9080)
	backend("default", "reviews", "v1", 9080)
	backend("default", "reviews", "v2", 9080)
	backend("default", "reviews", "v3", 9080)
	backend("default", "httpbin", "v1", 8080)
	backend("default", "httpbin", "v2", 8080)
	backend("default", "mirror", "v1", 8080)
	backend("default", "greeter", "v1", 7070)
	backend("default", "tcp-echo", "v1", 9000)
	backend("default", "any", "v1", 6000)
	backend("default", "legacy", "v1", 8080).plain = true
	backend("partner", "orders", "v1", 8080)
	backend("default", "curl", "").account = "curl"
	backend("other", "stranger", "").account = "stranger"
	backend("default", "moved", "v1", 8080).impostor = true
	sidecar := backend("default", "sidecar", "v1", 8080, 9000)
	sidecar.sidecar, sidecar.labels["security.istio.io/tlsMode"] = true, "istio"
	impostor := backend("default", "sidecar-moved", "v1", 8080)
	impostor.sidecar, impostor.impostor, impostor.labels["security.istio.io/tlsMode"] = true, true, "istio"
	backend("default", "secure", "v1", 8443).tls = "secure.example.com"
	vault := backend("default", "vault", "v1", 8443)
	vault.plain, vault.tls = true, "vault.example.com"
	backend("default", "authz", "v1", 8000, 9000)
	for _, p := range proxyPairs() {
		for i, ip := range p.ips {
			out = append(out, workload{
				namespace: p.namespace, name: p.name + "-" + []string{"envoy", "isthmus"}[i], account: p.account, ip: ip, labels: p.labels, proxy: true,
			})
		}
	}
	return out
}

// proxyPair is one deployment with two pods: Envoy and our engine.
type proxyPair struct {
	kind                     string // waypoint or router
	namespace, name, account string
	ips                      [2]netip.Addr
	labels                   map[string]string
}

func proxyPairs() []proxyPair {
	ips := func(n byte) [2]netip.Addr {
		return [2]netip.Addr{netip.AddrFrom4([4]byte{10, 77, 2, n}), netip.AddrFrom4([4]byte{10, 77, 2, n + 1})}
	}
	managed := func(name, controller string) map[string]string {
		return map[string]string{gatewayNameLabel: name, "gateway.istio.io/managed": controller}
	}
	return []proxyPair{
		{kind: "waypoint", namespace: "default", name: "waypoint", account: "waypoint", ips: ips(1), labels: managed("waypoint", "istio.io-mesh-controller")},
		{kind: "router", namespace: "istio-system", name: "ingress", account: "istio-ingressgateway-service-account", ips: ips(11), labels: map[string]string{"app": "istio-ingressgateway", "istio": "ingressgateway"}},
		{kind: "router", namespace: "default", name: "gateway", account: "bookinfo-gateway-istio", ips: ips(21), labels: managed("bookinfo-gateway", "istio.io-gateway-controller")},
	}
}

// services of every fixture. Ports without a protocol in their name are found out from the traffic.
func services() []service {
	http := func(port, target int) []servicePort { return []servicePort{{port: port, target: target, name: "http"}} }
	all := []service{
		{name: "productpage", ports: http(9080, 9080)},
		{name: "details", ports: http(9080, 9080)},
		{name: "ratings", ports: http(9080, 9080)},
		{name: "reviews", ports: http(9080, 9080)},
		{name: "httpbin", ports: append(http(8000, 8080), servicePort{port: 8001, target: 8080, name: "http-alt"})},
		{name: "mirror", ports: http(8000, 8080)},
		{name: "greeter", ports: []servicePort{{port: 7070, target: 7070, name: "grpc"}}},
		{name: "tcp-echo", ports: []servicePort{{port: 9000, target: 9000, name: "tcp"}}},
		{name: "any", ports: []servicePort{{port: 6000, target: 6000, name: "whatever"}}},
		{name: "legacy", ports: http(8000, 8080)},
		{name: "empty", ports: http(8000, 8080)},
		{name: "marker", ports: http(8000, 8080)},
		{name: "free", selector: "httpbin", ports: http(8000, 8080), labels: map[string]string{"istio.io/use-waypoint": "none"}},
		{namespace: "partner", name: "orders", ports: http(8000, 8080)},
		{name: "moved", ports: http(8000, 8080)},
		{name: "sidecar", ports: append(http(8000, 8080), servicePort{port: 9000, target: 9000, name: "tcp"}, servicePort{port: 8002, target: 8080, name: "http2"})},
		{name: "sidecar-moved", ports: http(8000, 8080)},
		{name: "secure", ports: append(http(8000, 8443), servicePort{port: 443, target: 8443, name: "tls"}, servicePort{port: 6443, target: 8443, name: "whatever"})},
		{name: "vault", ports: append(http(8000, 8443), servicePort{port: 443, target: 8443, name: "tls"})},
	}
	for _, v := range []string{"productpage-v1", "details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3"} {
		app, version, _ := strings.Cut(v, "-")
		all = append(all, service{name: v, selector: app, version: version, ports: http(9080, 9080)})
	}
	all = append(all, service{
		name: "nearby", selector: "httpbin", ports: http(8000, 8080), annotations: map[string]string{"networking.istio.io/traffic-distribution": "PreferClose"},
	})
	all = append(all, service{name: "authz", ports: append(http(8000, 8000), servicePort{port: 9000, target: 9000, name: "grpc"})})
	all = append(all, service{name: "sticky", selector: "httpbin", ports: http(8000, 8080), labels: map[string]string{"istio.io/persistent-session": "sid"}})
	all = append(all, service{name: "sticky-header", selector: "httpbin", ports: http(8000, 8080), labels: map[string]string{"istio.io/persistent-session-header": "x-session"}})
	all = append(all, service{name: "local", selector: "httpbin", local: true, ports: http(8000, 8080)})
	all = append(all, service{name: "local-tcp", selector: "tcp-echo", local: true, ports: []servicePort{{port: 9000, target: 9000, name: "tcp"}}})
	for i := range all {
		s := &all[i]
		s.vip = netip.AddrFrom4([4]byte{10, 96, 0, byte(i + 10)})
		if s.namespace == "" {
			s.namespace = "default"
		}
		if s.selector == "" {
			s.selector = s.name
		}
	}
	return all
}

func (s service) host() string { return s.name + "." + s.namespace + ".svc.cluster.local" }

// variation is what a fixture has different in the world.
type variation struct {
	// Localities of pods: region/zone/subzone. Those of proxies are always the same.
	Localities map[string]string `json:"localities"`
	// Unready are pods that run, and are not ready.
	Unready []string `json:"unready"`
	// Nodes of pods that are elsewhere than the proxies.
	Nodes map[string]string `json:"nodes"`
}

// proxyLocality and proxyNode are where all proxies run.
const (
	proxyLocality = "region1/zone1/sub1"
	proxyNode     = "node-1"
)

// worldYAML are the manifests that every fixture adds to. The waypoint is for service, workload or all, and has annotations.
func worldYAML(waypointFor string, annotations map[string]string, v variation) string {
	var b strings.Builder
	doc := func(format string, args ...any) { fmt.Fprintf(&b, format+"---\n", args...) }
	doc("apiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}\n")
	for _, ns := range []string{"istio-system", "other", "partner"} {
		doc("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", ns)
	}
	doc("apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: istio}\nspec: {controllerName: istio.io/gateway-controller}\n")
	doc("apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: istio-waypoint}\nspec: {controllerName: istio.io/mesh-controller}\n")
	doc(`apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: default, labels: {istio.io/waypoint-for: %s}, annotations: %s}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{type: Hostname, value: waypoint.default.svc.cluster.local}]}
`, waypointFor, flow(annotations))
	doc(`apiVersion: v1
kind: Service
metadata: {name: waypoint, namespace: default, labels: {%s: waypoint}}
spec: {clusterIP: 10.96.0.2, selector: {%s: waypoint}, ports: [{name: status-port, port: 15021}, {name: mesh, port: 15008, appProtocol: all}]}
`, gatewayNameLabel, gatewayNameLabel)
	doc(`apiVersion: v1
kind: Service
metadata: {name: istio-ingressgateway, namespace: istio-system}
spec: {type: LoadBalancer, clusterIP: 10.96.0.3, selector: {istio: ingressgateway}, ports: [{name: http2, port: 80, targetPort: 8080}, {name: alt, port: 8081, targetPort: 8081}]}
`)
	doc(`apiVersion: v1
kind: Service
metadata: {name: bookinfo-gateway-istio, namespace: default, labels: {%s: bookinfo-gateway}}
spec: {type: LoadBalancer, clusterIP: 10.96.0.4, selector: {%s: bookinfo-gateway}, ports: [{name: status-port, port: 15021}, {name: http, port: 80}]}
`, gatewayNameLabel, gatewayNameLabel)
	for _, s := range services() {
		doc("%s", s.yaml())
	}
	for _, w := range workloads() {
		doc("%s", w.yaml(v))
	}
	return b.String()
}

func (s service) yaml() string {
	var ports []string
	for _, p := range s.ports {
		ports = append(ports, fmt.Sprintf("{name: %s, port: %d, targetPort: %d, protocol: TCP}", p.name, p.port, p.target))
	}
	selector := map[string]string{"app": s.selector}
	if s.version != "" {
		selector["version"] = s.version
	}
	policy := "Cluster"
	if s.local {
		policy = "Local"
	}
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: %s, labels: %s, annotations: %s}\nspec: {clusterIP: %s, internalTrafficPolicy: %s, selector: %s, ports: [%s]}\n",
		s.name, s.namespace, flow(s.labels), flow(s.annotations), s.vip, policy, flow(selector), strings.Join(ports, ", "))
}

func (w workload) yaml(v variation) string {
	annotations := map[string]string{}
	if !w.plain && !w.proxy && !w.sidecar {
		annotations["ambient.istio.io/redirection"] = "enabled"
	}
	labels, ready := map[string]string{}, "True"
	maps.Copy(labels, w.labels)
	at := v.Localities[w.name]
	if w.proxy {
		at = proxyLocality
	}
	if at != "" {
		labels["istio-locality"] = strings.ReplaceAll(at, "/", ".")
	}
	if slices.Contains(v.Unready, w.name) {
		ready = "False"
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, uid: %s, labels: %s, annotations: %s}
spec: {nodeName: %s, serviceAccountName: %s, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: %s, podIPs: [{ip: %s}], conditions: [{type: Ready, status: %q}]}
`, w.name, w.namespace, w.name, flow(labels), flow(annotations), orDefault(v.Nodes[w.name], proxyNode), w.account, w.ip, w.ip, ready)
}

// flow writes a map as YAML in one line.
func flow(m map[string]string) string {
	var parts []string
	for k, v := range m {
		parts = append(parts, fmt.Sprintf("%s: %q", k, v))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
