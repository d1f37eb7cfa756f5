package gateway

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// listener is a server of a classic Gateway, or a listener of the Gateway API.
type listener struct {
	// gateway is the namespace/name of a classic Gateway, by which VirtualServices name it; empty for the Gateway API.
	gateway string
	hosts   []serverHost
	// number is the port as written, bound the one that the pods listen on.
	number, bound uint32
	bind          string
	protocol      Protocol
	// terminated is set for HTTPS.
	terminated *networkingapi.ServerTLSSettings
	redirect   bool
	routeName  string
	// api is the listener as the Gateway API has it, of whom.
	api    *gatewayv1.Listener
	of     *routeParent
	origin route.Origin
	path   *field.Path
}

// serverHost is namespace/host of a classic server.
type serverHost struct {
	// namespace of the VirtualServices that may bind; * for any.
	namespace, host string
}

// listeners reads all servers and listeners of a gateway, the oldest Gateway's first. Those that cannot be are named and left out.
func (t *translation) listeners(in GatewayInput) []*listener {
	var out []*listener
	classic := slices.Clone(in.Classic)
	slices.SortStableFunc(classic, func(a, b *networkingv1.Gateway) int { return OlderClassic(&a.ObjectMeta, &b.ObjectMeta) })
	for _, gw := range classic {
		for i, s := range gw.Spec.Servers {
			if l := t.classicListener(gw, i, s); l != nil {
				out = append(out, l)
			}
		}
	}
	if in.K8s != nil {
		for _, m := range mergedListeners(t.view, in.K8s) {
			if l := apiListener(t.view, in.K8s, m); l != nil {
				out = append(out, l)
			}
		}
	}
	kept := out[:0]
	for _, l := range out {
		l.bound = l.number
		if in.TargetPort != nil {
			if target := in.TargetPort(l.number); target != 0 {
				l.bound = target
			}
		}
		first := slices.IndexFunc(kept, func(o *listener) bool { return o.bind == l.bind && o.bound == l.bound && !compatible(o, l) })
		if first >= 0 {
			t.problem(l.origin, l.path, "port %d speaks another protocol already", l.number)
			continue
		}
		if l.routeName == "" && l.protocol == HTTP {
			l.routeName = "http." + strconv.FormatUint(uint64(l.bound), 10)
			if l.bind != "" {
				l.routeName += "." + l.bind
			}
		}
		kept = append(kept, l)
	}
	slices.SortStableFunc(kept, func(a, b *listener) int {
		return cmp.Or(cmp.Compare(a.bound, b.bound), strings.Compare(a.bind, b.bind))
	})
	return kept
}

// compatible reports whether two may share a port: HTTP with HTTP, and what SNI tells apart.
func compatible(a, b *listener) bool {
	sni := func(l *listener) bool { return l.protocol == TLS || l.terminated != nil }
	return sni(a) == sni(b) && (sni(a) || a.protocol == b.protocol && a.protocol != TCP)
}

func (t *translation) classicListener(gw *networkingv1.Gateway, i int, s *networkingapi.Server) *listener {
	origin := route.Origin{Group: groupNetworking, Version: "v1", Kind: kindGateway, Namespace: gw.Namespace, Name: gw.Name}
	path := field.NewPath("spec", "servers").Index(i)
	l := &listener{
		gateway: gw.Namespace + "/" + gw.Name, number: s.GetPort().GetNumber(), bind: s.GetBind(),
		redirect: s.GetTls().GetHttpsRedirect(), origin: origin, path: path,
	}
	if l.number == 0 || l.number > 65535 {
		t.problem(origin, path.Child("port", "number"), "%d is no port", l.number)
		return nil
	}
	for j, h := range s.GetHosts() {
		host := serverHost{namespace: "*", host: h}
		if ns, name, ok := strings.Cut(h, "/"); ok {
			host = serverHost{namespace: ns, host: name}
			if ns == "." {
				host.namespace = gw.Namespace
			}
		}
		if !validHost(host.host) {
			t.problem(origin, path.Child("hosts").Index(j), "%q is no host name", h)
			continue
		}
		l.hosts = append(l.hosts, host)
	}
	if len(l.hosts) == 0 {
		t.problem(origin, path.Child("hosts"), "a host is needed")
		return nil
	}
	if !t.classicProtocol(l, gw, s) {
		return nil
	}
	return l
}

func (t *translation) classicProtocol(l *listener, gw *networkingv1.Gateway, s *networkingapi.Server) bool {
	passthrough := s.GetTls() == nil || s.Tls.Mode == networkingapi.ServerTLSSettings_PASSTHROUGH
	switch strings.ToUpper(s.GetPort().GetProtocol()) {
	case "HTTP", "HTTP2", "GRPC", "GRPC-WEB":
		l.protocol = HTTP
	case "HTTPS":
		if s.GetTls() == nil {
			t.problem(l.origin, l.path.Child("tls"), "HTTPS needs TLS settings")
			return false
		}
		if l.protocol = TLS; !passthrough {
			l.protocol, l.terminated = HTTP, s.Tls
			name := strings.ReplaceAll(s.Port.Name, ".", "-")
			l.routeName = "https." + strconv.FormatUint(uint64(l.number), 10) + "." + name + "." + gw.Name + "." + gw.Namespace
		}
	case "TLS":
		if l.protocol = TLS; !passthrough {
			l.terminated = s.Tls
		}
	case "TCP", "MONGO", "MYSQL", "REDIS":
		l.protocol = TCP
	default:
		t.problem(l.origin, l.path.Child("port", "protocol"), "%q is not supported", s.GetPort().GetProtocol())
		return false
	}
	return t.classicTLS(l, s)
}

// apiListener reads a listener of the Gateway API; nil for one that is refused, for HBONE, and where TLS is to end and cannot.
func apiListener(v View, gw *gatewayv1.Gateway, in mergedListener) *listener {
	l := &listener{
		number: uint32(in.Port), api: in.Listener, of: in.of, path: field.NewPath("spec", "listeners").Index(in.index),
		origin: route.Origin{Group: groupGateway, Version: "v1", Kind: in.of.kind, Namespace: in.of.namespace, Name: in.of.name},
	}
	host := "*"
	if in.Hostname != nil && *in.Hostname != "" {
		host = string(*in.Hostname)
	}
	if len(in.refused) > 0 || l.number == 0 || l.number > 65535 {
		return nil
	}
	l.hosts = []serverHost{{namespace: "*", host: host}}
	switch in.Protocol {
	case gatewayv1.HTTPProtocolType:
		l.protocol = HTTP
	case gatewayv1.HTTPSProtocolType:
		l.protocol = HTTP
		l.routeName = "https." + strconv.FormatUint(uint64(l.number), 10) + "." + in.routeName()
	case gatewayv1.TLSProtocolType:
		l.protocol = TLS
	case gatewayv1.TCPProtocolType:
		l.protocol = TCP
	default:
		return nil
	}
	if terminates(in.Listener) {
		if l.terminated = newListenerTLS(v, gw, in).served(); l.terminated == nil {
			return nil
		}
	}
	return l
}

// routeName tells listeners apart. Nothing has a slash in its name, so that a ListenerSet's are never called as those of a Gateway.
func (m *mergedListener) routeName() string {
	if m.of.isSet() {
		return m.of.namespace + "/" + m.of.name + "/" + string(m.Name)
	}
	return string(m.Name) + "." + m.of.name + "." + m.of.namespace
}
