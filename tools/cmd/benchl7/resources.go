package main

import (
	"fmt"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	meshapi "istio.io/api/mesh/v1alpha1"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/envoy"
	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// The world of the test bed: a gateway with hosts × routes, and a service behind a waypoint.
const (
	namespace     = "bench"
	hosts         = 100
	routesPerHost = 10
	servicePort   = 8080

	// pod is where the services behind the waypoint run, one half of them on servicePort, those that speak HTTP/2 on the port after it; it
	// takes HBONE on port 15008.
	pod = "127.0.1.1"
)

// vip is the address of a service behind the waypoint.
func vip(host int) netip.Addr { return netip.AddrFrom4([4]byte{240, 240, byte(host >> 8), byte(host)}) }

// add takes messages under their names.
func (r resources) add(messages ...proto.Message) error {
	for _, m := range messages {
		packed, err := anypb.New(m)
		if err != nil {
			return err
		}
		name := ""
		switch m := m.(type) {
		case interface{ GetName() string }:
			name = m.GetName()
		case *endpointv3.ClusterLoadAssignment:
			name = m.GetClusterName()
		}
		if r[packed.GetTypeUrl()] == nil {
			r[packed.GetTypeUrl()] = map[string]*anypb.Any{}
		}
		r[packed.GetTypeUrl()][name] = packed
	}
	return nil
}

func mesh() envoy.Mesh {
	return envoy.Mesh{
		Mesh: ambient.Mesh{ClusterID: "Kubernetes", TrustDomain: trustDomain, RootNamespace: "istio-system", Domain: "cluster.local"},
		// Everything is on this machine here.
		Config: &meshapi.MeshConfig{DefaultConfig: &meshapi.ProxyConfig{ProxyMetadata: map[string]string{envoy.OptionLocalEndpoints: "allow"}}},
	}
}

func hostname(host int) string { return fmt.Sprintf("svc-%d.%s.svc.cluster.local", host, namespace) }

// domain is what a client of the gateway calls a host.
func domain(host int) string { return fmt.Sprintf("svc-%d.example.com", host) }

func pathPrefix(k int) string { return fmt.Sprintf("/api/v1/resource-%d/", k) }

// speaksHTTP2 tells which half of the services does.
func speaksHTTP2(host int) bool { return host >= hosts/2 }

// policies are those of a usual service: who may do what, and what nobody may.
func policies(from *securityapi.Source) []*securityv1.AuthorizationPolicy {
	make := func(name string, action securityapi.AuthorizationPolicy_Action, rules ...*securityapi.Rule) *securityv1.AuthorizationPolicy {
		return &securityv1.AuthorizationPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Spec: securityapi.AuthorizationPolicy{Action: action, Rules: rules},
		}
	}
	to := func(o *securityapi.Operation) []*securityapi.Rule_To { return []*securityapi.Rule_To{{Operation: o}} }
	return []*securityv1.AuthorizationPolicy{
		make("clients", securityapi.AuthorizationPolicy_ALLOW, &securityapi.Rule{
			From: []*securityapi.Rule_From{{Source: from}},
			To:   to(&securityapi.Operation{Methods: []string{"GET", "POST", "PUT"}, Paths: []string{"/api/*"}}),
		}),
		make("no-admin", securityapi.AuthorizationPolicy_DENY, &securityapi.Rule{To: to(&securityapi.Operation{Paths: []string{"/admin/*"}})}),
	}
}

// gatewayResources is a gateway on the address, as pilot would translate it.
func gatewayResources(address netip.AddrPort, h1, h2 netip.AddrPort) (resources, error) {
	table := &route.Config{Name: "http.8080"}
	out := resources{}
	for host := range hosts {
		vh := route.VirtualHost{Name: domain(host) + ":8080", Domains: []string{domain(host), domain(host) + ":*"}}
		protocol, backend := envoy.HTTP, h1
		if speaksHTTP2(host) {
			protocol, backend = envoy.HTTP2, h2
		}
		cluster := envoy.Cluster{
			Mesh: mesh(), Name: envoy.Outbound(servicePort, "", hostname(host)), Host: hostname(host), Service: fmt.Sprintf("svc-%d", host), Namespace: namespace,
			Port: servicePort, Protocol: protocol,
		}
		vh.Routes = serviceRoutes(cluster.Name, fmt.Sprintf("svc-%d", host))
		table.Hosts = append(table.Hosts, vh)
		endpoint := envoy.Endpoint{Address: backend.Addr().String(), Port: uint32(backend.Port()), Workload: fmt.Sprintf("svc-%d;%s;svc-%d;v1;Kubernetes", host, namespace, host)}
		if err := out.add(cluster.Resource(), envoy.Assignment(cluster.Name, []envoy.Endpoint{endpoint})); err != nil {
			return nil, err
		}
	}
	for _, c := range envoy.ProxyClusters(mesh(), false, false) {
		if err := out.add(c); err != nil {
			return nil, err
		}
	}
	listeners := envoy.Gateway{
		Mesh:        mesh(),
		Servers:     []gateway.Server{{Bind: address.Addr().String(), Port: uint32(address.Port()), Protocol: gateway.HTTP, Name: "0.0.0.0_8080", Chains: []gateway.ServerChain{{RouteName: table.Name}}}},
		HTTPFilters: policy.HTTPFilters(policy.Input{Proxy: policy.Gateway, Policies: policies(&securityapi.Source{IpBlocks: []string{"127.0.0.0/8"}})}),
	}.Listeners()
	return out, out.finish(table, listeners)
}

// serviceRoutes are those of one VirtualService.
func serviceRoutes(cluster, service string) []route.Route {
	var out []route.Route
	for k := range routesPerHost {
		out = append(out, route.Route{
			Name: fmt.Sprintf("resource-%d", k), Match: route.Match{Path: route.Path{Kind: route.PathPrefix, Value: pathPrefix(k)}},
			Forward:   &route.Forward{Targets: []route.Target{{Cluster: cluster, Weight: 1}}, Retry: route.DefaultRetry()},
			Decorator: fmt.Sprintf("%s:%d%s*", service, servicePort, pathPrefix(k)),
			Origin:    route.Origin{Group: "networking.istio.io", Version: "v1", Kind: "VirtualService", Namespace: namespace, Name: service},
		})
	}
	return out
}

func (r resources) finish(table *route.Config, listeners []*listenerv3.Listener) error {
	routes, problems := table.Envoy()
	if len(problems) > 0 {
		return fmt.Errorf("routes: %v", problems)
	}
	if err := r.add(routes); err != nil {
		return err
	}
	for _, l := range listeners {
		if err := r.add(l); err != nil {
			return err
		}
	}
	return nil
}

// waypointResources is a waypoint on the address, with a number of services behind it.
func waypointResources(address netip.AddrPort, identity string, services int) (resources, error) {
	w := envoy.Waypoint{Mesh: mesh()}
	filters := policy.HTTPFilters(policy.Input{Proxy: policy.Waypoint, Policies: policies(&securityapi.Source{
		Principals: []string{trustDomain + "/ns/" + namespace + "/sa/client"},
	})})
	out := resources{}
	for host := range services {
		protocol, port := envoy.HTTP, uint32(servicePort)
		if speaksHTTP2(host) {
			protocol, port = envoy.HTTP2, servicePort+1
		}
		name, service := envoy.InboundVIP(servicePort, "http", "", hostname(host)), fmt.Sprintf("svc-%d", host)
		cluster := envoy.Cluster{Mesh: mesh(), Name: name, Host: hostname(host), Service: service, Namespace: namespace, Port: servicePort, Protocol: protocol}
		endpoint := envoy.Endpoint{Address: pod, Port: port, HBONE: true, Identity: identity, Workload: service + ";" + namespace + ";" + service + ";v1;Kubernetes"}
		routes, problems := waypointRoutes(host, "").Envoy()
		if len(problems) > 0 {
			return nil, fmt.Errorf("routes: %v", problems)
		}
		if err := out.add(cluster.Resource(), envoy.Assignment(name, []envoy.Endpoint{endpoint}), routes); err != nil {
			return nil, err
		}
		of := envoy.WaypointService{Host: hostname(host), Addresses: []netip.Addr{vip(host)}, Port: servicePort, Protocol: protocol, HTTPFilters: filters}
		w.Services, w.Chains = append(w.Services, of), append(w.Chains, of.Chains(mesh())...)
	}
	for _, c := range envoy.ProxyClusters(mesh(), true, false) {
		if err := out.add(c); err != nil {
			return nil, err
		}
	}
	for _, l := range w.Listeners() {
		if a := l.GetAddress().GetSocketAddress(); a != nil {
			a.Address, a.PortSpecifier = address.Addr().String(), &corev3.SocketAddress_PortValue{PortValue: uint32(address.Port())}
		}
		if err := out.add(l); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// waypointRoutes are those of one service behind the waypoint. The variant is in the names, so that another one is another content.
func waypointRoutes(host int, variant string) *route.Config {
	return &route.Config{Name: envoy.WaypointRoute(servicePort, hostname(host)), Hosts: []route.VirtualHost{{
		Name: fmt.Sprintf("inbound|http|%d%s", servicePort, variant), Domains: []string{"*"},
		Routes: serviceRoutes(envoy.InboundVIP(servicePort, "http", "", hostname(host)), fmt.Sprintf("svc-%d", host)),
	}}}
}
