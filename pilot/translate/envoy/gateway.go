package envoy

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// Gateway is all that the listeners of a gateway are made from.
type Gateway struct {
	Mesh     Mesh
	Servers  []gateway.Server
	Families Families
	// HTTPFilters and NetworkFilters are the policies.
	HTTPFilters    []*hcmv3.HttpFilter
	NetworkFilters []*listenerv3.Filter
}

// Listeners of a gateway: one for each port that can be served, and the one that carries connections to pods.
func (g Gateway) Listeners() []*listenerv3.Listener {
	out := []*listenerv3.Listener{connectOriginate()}
	for _, s := range g.Servers {
		if l := g.listener(s); l != nil {
			out = append(out, l)
		}
	}
	return out
}

// listener is nil when none of the server's chains can be served: a port without a chain would refuse connections all the same.
func (g Gateway) listener(s gateway.Server) *listenerv3.Listener {
	l := &listenerv3.Listener{
		Name:             s.Name,
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
		Metadata:         g.Mesh.options().listener(),
	}
	if _, err := netip.ParseAddr(s.Bind); err == nil {
		l.Address = socketAddress(s.Bind, s.Port)
	} else if s.Bind == "" {
		g.Families.anywhere(l, s.Port)
	} else {
		return nil
	}
	bySNI := false
	var origins []route.Origin
	for _, c := range s.Chains {
		var filters []*listenerv3.Filter
		switch {
		case c.RouteName != "":
			filters = []*listenerv3.Filter{networkFilter(hcmFilter, g.manager(l.Name, c.RouteName))}
		case len(c.TCP) > 0:
			filters = append(append(filters, g.NetworkFilters...), ForwardTCP(g.Mesh, "", c.TCP[0]))
		default:
			continue
		}
		chain := &listenerv3.FilterChain{Filters: filters}
		match := &listenerv3.FilterChainMatch{ServerNames: c.SNI}
		if len(c.TCP) > 0 {
			match.PrefixRanges = cidrRanges(c.TCP[0].Destinations)
		}
		if c.TLS != nil {
			chain.TransportSocket = g.serverTLS(c.TLS)
		}
		bySNI = bySNI || len(c.SNI) > 0 || c.TLS != nil
		if len(match.ServerNames)+len(match.PrefixRanges) > 0 {
			chain.FilterChainMatch = match
		}
		l.FilterChains = append(l.FilterChains, chain)
		var origin route.Origin
		if len(c.TCP) > 0 {
			origin = c.TCP[0].Origin
		}
		origins = append(origins, origin)
	}
	if len(l.FilterChains) == 0 {
		return nil
	}
	if g.Mesh.Config.GetDefaultConfig().GetGatewayTopology().GetProxyProtocol() != nil {
		l.ListenerFilters = append(l.ListenerFilters, proxyProtocolFilter()) // before those that look at what follows
	}
	g.Mesh.naming(g.Mesh.telling(l.FilterChains), origins)
	if bySNI {
		l.ListenerFilters = append(l.ListenerFilters, &listenerv3.ListenerFilter{
			Name:       "envoy.filters.listener.tls_inspector",
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(&tlsinspectorv3.TlsInspector{})},
		})
	}
	return l
}

// manager takes requests of clients outside of the mesh: what they say about themselves is not believed.
func (g Gateway) manager(listener, routes string) *hcmv3.HttpConnectionManager {
	h := withRDS(requestManager(g.Mesh, "outbound_"+listener, g.HTTPFilters), routes)
	h.UseRemoteAddress = yes()
	h.RequestHeadersTimeout = g.Mesh.options().headersTimeout()
	h.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
	h.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Subject: yes(), Cert: true, Dns: true, Uri: true}
	if t := g.Mesh.Config.GetDefaultConfig().GetGatewayTopology(); t != nil {
		h.XffNumTrustedHops = t.GetNumTrustedProxies()
	}
	return h
}

func cidrRanges(prefixes []string) []*corev3.CidrRange {
	var out []*corev3.CidrRange
	for _, text := range prefixes {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: u32(uint32(p.Bits()))})
		}
	}
	return out
}

// ForwardTCP is the filter that carries connections where a route says. statPrefix is empty for the first target's name. What the first
// target says of connections holds for all.
func ForwardTCP(mesh Mesh, statPrefix string, by gateway.TCPRoute) *listenerv3.Filter {
	targets := by.Targets
	if len(targets) == 0 {
		return tcpProxy(mesh, BlackHole, BlackHole)
	}
	if statPrefix == "" {
		statPrefix = targets[0].Cluster
	}
	out := &tcpv3.TcpProxy{StatPrefix: statPrefix, ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: targets[0].Cluster}, AccessLog: mesh.accessLogs()}
	if len(targets) > 1 {
		weighted := &tcpv3.TcpProxy_WeightedCluster{}
		for _, t := range targets {
			if t.Weight > 0 {
				weighted.Clusters = append(weighted.Clusters, &tcpv3.TcpProxy_WeightedCluster_ClusterWeight{Name: t.Cluster, Weight: t.Weight})
			}
		}
		if len(weighted.Clusters) == 0 {
			return tcpProxy(mesh, statPrefix, BlackHole)
		}
		out.ClusterSpecifier = &tcpv3.TcpProxy_WeightedClusters{WeightedClusters: weighted}
	}
	said := targets[0].TCPSettings
	if said.Idle != nil {
		out.IdleTimeout = durationpb.New(*said.Idle)
	}
	if said.Lifetime != nil {
		out.MaxDownstreamConnectionDuration = durationpb.New(*said.Lifetime)
	}
	if said.BySource {
		out.HashPolicy = []*typev3.HashPolicy{{PolicySpecifier: &typev3.HashPolicy_SourceIp_{SourceIp: &typev3.HashPolicy_SourceIp{}}}}
	}
	return networkFilter(tcpProxyFilter, out)
}
