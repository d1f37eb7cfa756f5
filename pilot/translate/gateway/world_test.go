package gateway

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// world is a View of the objects of a file. Nothing in it is exported or not: every namespace sees all of it.
type world struct {
	services   map[string]*Service
	entries    map[string]*networkingv1.ServiceEntry
	virtual    map[string]*networkingv1.VirtualService
	rules      map[string]*networkingv1.DestinationRule
	classic    map[string]*networkingv1.Gateway
	gateways   map[string]*gatewayv1.Gateway
	sets       map[string]*gatewayv1.ListenerSet
	classes    map[string]*gatewayv1.GatewayClass
	https      map[string]*gatewayv1.HTTPRoute
	grpcs      map[string]*gatewayv1.GRPCRoute
	tlss       map[string]*gatewayv1.TLSRoute
	tcps       map[string]*gatewayv1.TCPRoute
	backendTLS map[string]*gatewayv1.BackendTLSPolicy
	grants     map[string][]*gatewayv1.ReferenceGrant
	namespaces map[string]*corev1.Namespace
	secrets    map[string]bool
}

func decodeWorld(t testing.TB, name string, data []byte) *world {
	t.Helper()
	decoded, problems := kube.Decode(name, data)
	for _, p := range problems {
		t.Fatalf("%v", p)
	}
	w := newWorld()
	for _, d := range decoded {
		w.add(d.Object)
	}
	return w
}

func newWorld() *world {
	return &world{
		services: map[string]*Service{}, entries: map[string]*networkingv1.ServiceEntry{}, virtual: map[string]*networkingv1.VirtualService{},
		rules: map[string]*networkingv1.DestinationRule{}, classic: map[string]*networkingv1.Gateway{},
		gateways: map[string]*gatewayv1.Gateway{}, sets: map[string]*gatewayv1.ListenerSet{}, classes: map[string]*gatewayv1.GatewayClass{},
		https: map[string]*gatewayv1.HTTPRoute{}, grpcs: map[string]*gatewayv1.GRPCRoute{},
		tlss: map[string]*gatewayv1.TLSRoute{}, tcps: map[string]*gatewayv1.TCPRoute{},
		backendTLS: map[string]*gatewayv1.BackendTLSPolicy{},
		grants:     map[string][]*gatewayv1.ReferenceGrant{}, namespaces: map[string]*corev1.Namespace{}, secrets: map[string]bool{},
	}
}

func (w *world) add(object kube.Object) {
	if object.GetNamespace() == "" {
		object.SetNamespace("default")
	}
	key := object.GetNamespace() + "/" + object.GetName()
	switch o := object.(type) {
	case *corev1.Service:
		s := &Service{Hostname: Mesh{}.ServiceHost(o.Name, o.Namespace), Namespace: o.Namespace, Name: o.Name, Session: ambient.SessionOf(o.Labels)}
		for _, p := range o.Spec.Ports {
			target := uint32(p.TargetPort.IntValue())
			if target == 0 {
				target = uint32(p.Port)
			}
			s.Ports = append(s.Ports, Port{Number: uint32(p.Port), TargetPort: target, Name: p.Name, Protocol: spoken(p.Name)})
		}
		w.services[s.Hostname] = s
	case *networkingv1.ServiceEntry:
		w.entries[key] = o
		for _, h := range o.Spec.Hosts {
			s := &Service{Hostname: h, Namespace: o.Namespace, Name: o.Name, Entry: true, Session: ambient.SessionOf(o.Labels)}
			for _, p := range o.Spec.Ports {
				s.Ports = append(s.Ports, Port{Number: p.Number, TargetPort: p.Number, Name: p.Name, Protocol: HTTP})
			}
			w.services[h] = s
		}
	case *networkingv1.VirtualService:
		w.virtual[key] = o
	case *networkingv1.DestinationRule:
		w.rules[Mesh{}.FullHost(o.Spec.Host, o.Namespace)] = o
	case *networkingv1.Gateway:
		w.classic[key] = o
	case *gatewayv1.Gateway:
		w.gateways[key] = o
	case *gatewayv1.ListenerSet:
		w.sets[key] = o
	case *gatewayv1.GatewayClass:
		w.classes[o.Name] = o
	case *gatewayv1.HTTPRoute:
		w.https[key] = o
	case *gatewayv1.GRPCRoute:
		w.grpcs[key] = o
	case *gatewayv1.TLSRoute:
		w.tlss[key] = o
	case *gatewayv1.TCPRoute:
		w.tcps[key] = o
	case *gatewayv1.BackendTLSPolicy:
		w.backendTLS[key] = o
	case *gatewayv1.ReferenceGrant:
		w.grants[o.Namespace] = append(w.grants[o.Namespace], o)
	case *corev1.Secret, *corev1.ConfigMap:
		w.secrets[key] = true
	case *corev1.Namespace:
		w.namespaces[o.Name] = o
	}
}

// spoken is the protocol of a port by its name; HTTP where that says nothing.
func spoken(name string) Protocol {
	switch prefix, _, _ := strings.Cut(name, "-"); prefix {
	case "tcp":
		return TCP
	case "tls":
		return TLS
	case "whatever":
		return Unknown
	}
	return HTTP
}

func (w *world) Service(host, _ string) *Service { return w.services[host] }

func (w *world) ServiceEntry(namespace, name string) *networkingv1.ServiceEntry {
	return w.entries[namespace+"/"+name]
}

func (w *world) VirtualService(namespace, name string) *networkingv1.VirtualService {
	return w.virtual[namespace+"/"+name]
}

func (w *world) DestinationRule(host, _ string) *networkingv1.DestinationRule { return w.rules[host] }

func (w *world) Namespace(name string) *corev1.Namespace { return w.namespaces[name] }

func (w *world) ReferenceGrants(namespace string) []*gatewayv1.ReferenceGrant {
	return w.grants[namespace]
}

func (w *world) Gateway(namespace, name string) *gatewayv1.Gateway {
	return w.gateways[namespace+"/"+name]
}

func (w *world) ListenerSet(namespace, name string) *gatewayv1.ListenerSet {
	return w.sets[namespace+"/"+name]
}

func (w *world) ListenerSets(gatewayNamespace, gatewayName string) []*gatewayv1.ListenerSet {
	return ListenerSetsAmong{Sets: sortedValues(w.sets)}.ListenerSets(gatewayNamespace, gatewayName)
}

func (w *world) Credential(ref credential.Reference) error {
	if ref.Source.Name == "pending" {
		return credential.ErrPending
	}
	if !w.secrets[ref.Source.Namespace+"/"+ref.Source.Name] {
		return fmt.Errorf("there is no %s", ref.Source)
	}
	return nil
}

func (w *world) GatewayClass(name string) *gatewayv1.GatewayClass { return w.classes[name] }

// waypointInput serves every service of the waypoint's namespace.
func (w *world) waypointInput(waypoint, host string, port uint32) WaypointInput {
	namespace, name, _ := strings.Cut(waypoint, "/")
	in := WaypointInput{
		Namespace: namespace, Name: name, Service: w.services[host], Port: Port{Number: port, Protocol: HTTP},
		VirtualServices: sortedValues(w.virtual), HTTPRoutes: sortedValues(w.https), GRPCRoutes: sortedValues(w.grpcs),
		TLSRoutes: sortedValues(w.tlss), TCPRoutes: sortedValues(w.tcps),
	}
	if in.Service == nil {
		in.Service = &Service{Hostname: host, Namespace: namespace, Name: strings.Split(host, ".")[0], Ports: []Port{in.Port}}
	}
	for _, p := range in.Service.Ports {
		if p.Number == port {
			in.Port = p
		}
	}
	in.ClusterName = func(host string, port uint32, subset string) string {
		if s := w.services[host]; s != nil && s.Namespace == namespace {
			return WaypointCluster(host, port, "http", subset)
		}
		return OutboundCluster(host, port, subset)
	}
	return in
}

func (w *world) gatewayInput(namespace string, words []string) GatewayInput {
	in := GatewayInput{
		Namespace: namespace, ClusterName: OutboundCluster,
		VirtualServices: sortedValues(w.virtual), HTTPRoutes: sortedValues(w.https), GRPCRoutes: sortedValues(w.grpcs),
		TLSRoutes: sortedValues(w.tlss), TCPRoutes: sortedValues(w.tcps),
	}
	labels, ports := map[string]string{}, map[uint32]uint32{}
	for _, word := range words {
		if key, value, ok := strings.Cut(word, "="); ok {
			labels[key] = value
		} else if from, to, ok := strings.Cut(word, ":"); ok {
			a, _ := strconv.Atoi(from)
			b, _ := strconv.Atoi(to)
			ports[uint32(a)] = uint32(b)
		}
	}
	in.TargetPort = func(port uint32) uint32 { return ports[port] }
	in.K8s = w.gateways[namespace+"/"+labels["gateway.networking.k8s.io/gateway-name"]]
	for _, gw := range sortedValues(w.classic) {
		matches := true
		for k, v := range gw.Spec.Selector {
			matches = matches && labels[k] == v
		}
		if matches && in.K8s == nil {
			in.Classic = append(in.Classic, gw)
		}
	}
	return in
}

// backends is the TLS to all ports of all services, by host and port.
func (w *world) backends() map[string]any {
	out := map[string]any{}
	for _, s := range sortedValues(w.services) {
		for _, p := range s.Ports {
			if found := BackendTLSFor(w, sortedValues(w.backendTLS), s, p); found != nil {
				out[s.Hostname+":"+strconv.Itoa(int(p.Number))] = found
			}
		}
	}
	return out
}

// statuses are those of all objects.
func (w *world) statuses() map[string]any {
	out := map[string]any{}
	for key, r := range w.https {
		out["HTTPRoute "+key] = HTTPRouteStatus(w, Mesh{}, r).Parents
	}
	for key, r := range w.grpcs {
		out["GRPCRoute "+key] = GRPCRouteStatus(w, Mesh{}, r).Parents
	}
	for key, r := range w.tlss {
		out["TLSRoute "+key] = TLSRouteStatus(w, Mesh{}, r).Parents
	}
	for key, r := range w.tcps {
		out["TCPRoute "+key] = TCPRouteStatus(w, Mesh{}, r).Parents
	}
	address := gatewayv1.IPAddressType
	state := GatewayState{Ready: true, Addresses: []gatewayv1.GatewayStatusAddress{{Type: &address, Value: "10.0.0.1"}}}
	routes := Routes{HTTP: sortedValues(w.https), GRPC: sortedValues(w.grpcs), TLS: sortedValues(w.tlss), TCP: sortedValues(w.tcps)}
	for key, gw := range w.gateways {
		out["Gateway "+key] = GatewayStatus(w, gw, state, routes)
	}
	for key, set := range w.sets {
		out["ListenerSet "+key] = ListenerSetStatus(w, set, state, routes)
	}
	for key, vs := range w.virtual {
		out["VirtualService "+key] = VirtualServiceStatus(w, Mesh{}, vs, nil)
	}
	for key, gw := range w.classic {
		out["Gateway.networking.istio.io "+key] = ClassicGatewayStatus(w, gw, nil)
	}
	for key, p := range w.backendTLS {
		targets := BackendTLSTargets(p)
		named := func(keys []string) bool {
			return slices.ContainsFunc(keys, func(k string) bool { return slices.Contains(targets, k) })
		}
		state := BackendTLSState{Others: sortedValues(w.backendTLS), Waypoint: func(s *Service) string {
			if strings.HasPrefix(s.Name, "behind") {
				return "default/waypoint"
			}
			return ""
		}}
		for _, r := range sortedValues(w.https) {
			if named(HTTPRouteTargets(r)) {
				state.Routes.HTTP = append(state.Routes.HTTP, r)
			}
		}
		for _, r := range sortedValues(w.grpcs) {
			if named(GRPCRouteTargets(r)) {
				state.Routes.GRPC = append(state.Routes.GRPC, r)
			}
		}
		for _, r := range sortedValues(w.tlss) {
			if named(TLSRouteTargets(r)) {
				state.Routes.TLS = append(state.Routes.TLS, r)
			}
		}
		for _, r := range sortedValues(w.tcps) {
			if named(TCPRouteTargets(r)) {
				state.Routes.TCP = append(state.Routes.TCP, r)
			}
		}
		out["BackendTLSPolicy "+key] = BackendTLSPolicyStatus(w, Mesh{}, p, state)
	}
	for name, class := range w.classes {
		out["GatewayClass "+name] = GatewayClassStatus(class)
	}
	return out
}
