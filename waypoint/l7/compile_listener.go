package l7

import (
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	netextauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/extauthz"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/rbac"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

func compileListener(p *listenerv3.Listener) (*Listener, error) {
	if err := strict.Check(p); err != nil {
		return nil, err
	}
	l := &Listener{Name: p.GetName(), Internal: p.GetInternalListener() != nil, AccessLogs: p.GetAccessLog()}
	if l.Name == "" {
		return nil, strict.Errorf("name", "is required")
	}
	if p.GetUseOriginalDst().GetValue() {
		return nil, strict.Errorf("use_original_dst", "true is not supported")
	}
	own := p.GetMetadata().GetFilterMetadata()[meshMetadata].GetFields()
	l.Unfold, l.AnyPath = text(own, "folded_headers") == "unfold", text(own, "http2_paths") == "any"
	if !orTrue(p.GetBindToPort()) {
		return nil, strict.Errorf("bind_to_port", "is not supported when false")
	}
	l.FilterTimeout, l.ContinueOnTimeout = duration(p.GetListenerFiltersTimeout(), 15*time.Second), p.GetContinueOnListenerFiltersTimeout()
	if err := l.addresses(p); err != nil {
		return nil, err
	}
	for i, f := range p.GetListenerFilters() {
		if err := l.listenerFilter(f); err != nil {
			return nil, strict.AtIndex(err, "listener_filters", i)
		}
	}
	if l.Internal {
		o, err := compileOriginate(p)
		if err != nil {
			return nil, err
		}
		if o != nil {
			l.Originate = o
			return l, nil
		}
	}
	for i, fc := range p.GetFilterChains() {
		ch, err := compileChain(fc, l.Internal)
		if err != nil {
			return nil, strict.AtIndex(err, "filter_chains", i)
		}
		l.Chains = append(l.Chains, ch)
	}
	if fc := p.GetDefaultFilterChain(); fc != nil {
		ch, err := compileChain(fc, l.Internal)
		if err != nil {
			return nil, strict.At(err, "default_filter_chain")
		}
		l.Default = ch
	}
	l.telemetry(p)
	var err error
	if m := p.GetFilterChainMatcher(); m != nil {
		l.match, err = compileTree(m, l.Chains)
		return l, strict.At(err, "filter_chain_matcher")
	}
	l.match, err = compileMatches(p.GetFilterChains(), l.Chains)
	return l, err
}

func (l *Listener) addresses(p *listenerv3.Listener) error {
	if l.Internal {
		return nil
	}
	all := []*corev3.Address{p.GetAddress()}
	for _, a := range p.GetAdditionalAddresses() {
		all = append(all, a.GetAddress())
	}
	for i, a := range all {
		s := a.GetSocketAddress()
		field := "address"
		if i > 0 {
			field = "additional_addresses.address"
		}
		if s == nil || s.GetPortValue() > 65535 || s.GetProtocol() != corev3.SocketAddress_TCP {
			return strict.Errorf(field+".socket_address", "must be an address and a TCP port")
		}
		ip, err := netip.ParseAddr(s.GetAddress())
		if err != nil {
			return strict.Errorf(field+".socket_address.address", "%v", err)
		}
		//nolint:gosec // compared above
		l.Addresses = append(l.Addresses, ListenAddress{AddrPort: netip.AddrPortFrom(ip, uint16(s.GetPortValue())), Dual: s.GetIpv4Compat()})
	}
	return nil
}

func (l *Listener) listenerFilter(f *listenerv3.ListenerFilter) error {
	m, err := strict.Unpack(f.GetTypedConfig())
	if err != nil {
		return strict.At(err, "typed_config")
	}
	var off connPredicate
	if f.GetFilterDisabled() != nil {
		if off, err = compilePredicate(f.GetFilterDisabled()); err != nil {
			return strict.At(err, "filter_disabled")
		}
	}
	switch m.(type) {
	case *originaldstv3.OriginalDst:
		if !l.Internal || off != nil {
			return strict.Errorf("typed_config", "original_dst is supported on internal listeners only, and always")
		}
	case *httpinspectorv3.HttpInspector:
		l.InspectHTTP, l.httpOff = true, off
	case *tlsinspectorv3.TlsInspector:
		l.InspectTLS, l.tlsOff = true, off
	case *proxyprotocolv3.ProxyProtocol:
		switch {
		case l.Internal || off != nil:
			return strict.Errorf("typed_config", "proxy_protocol is supported on listeners with sockets only, and always")
		case l.InspectTLS || l.InspectHTTP:
			return strict.Errorf("typed_config", "proxy_protocol must come before the filters that look at what follows it")
		}
		l.ProxyProtocol = true
	default:
		return strict.Errorf("typed_config", "type %s is not supported here", m.ProtoReflect().Descriptor().FullName())
	}
	return nil
}

// compileOriginate recognises an internal listener whose only chain sends what comes through a tunnel; nil is another one.
func compileOriginate(p *listenerv3.Listener) (*Originate, error) {
	if len(p.GetFilterChains()) != 1 || len(p.GetFilterChains()[0].GetFilters()) != 1 {
		return nil, nil
	}
	a := p.GetFilterChains()[0].GetFilters()[0].GetTypedConfig()
	if !a.MessageIs(&tcpproxyv3.TcpProxy{}) {
		return nil, nil
	}
	const field = "filter_chains[0].filters[0].typed_config.tunneling_config"
	t, err := unpack[*tcpproxyv3.TcpProxy](a)
	if err != nil || t.GetTunnelingConfig() == nil {
		return nil, err
	}
	switch t.GetTunnelingConfig().GetHostname() {
	case "%DOWNSTREAM_LOCAL_ADDRESS%":
	default:
		return nil, strict.Errorf(field+".hostname", "%q is not supported: %%DOWNSTREAM_LOCAL_ADDRESS%%", t.GetTunnelingConfig().GetHostname())
	}
	if len(t.GetTunnelingConfig().GetHeadersToAdd()) > 0 {
		return nil, strict.Errorf(field+".headers_to_add", "is not supported")
	}
	if t.GetCluster() == "" {
		return nil, strict.Errorf("filter_chains[0].filters[0].typed_config.cluster", "is required")
	}
	return &Originate{Cluster: t.GetCluster(), StatPrefix: t.GetStatPrefix()}, nil
}

func compileChain(p *listenerv3.FilterChain, internal bool) (*Chain, error) {
	ch := &Chain{Name: p.GetName(), Told: p.GetMetadata().GetFilterMetadata()[meshMetadata]}
	if ts := p.GetTransportSocket(); ts != nil {
		m, err := strict.Unpack(ts.GetTypedConfig())
		if err != nil {
			return nil, strict.At(err, "transport_socket.typed_config")
		}
		if d, ok := m.(*tlsv3.DownstreamTlsContext); ok {
			if ch.TLS, err = compileServerTLS(d); err != nil {
				return nil, strict.At(err, "transport_socket.typed_config")
			}
		}
		if ch.TLS != nil && internal {
			return nil, strict.Errorf("transport_socket", "TLS on an internal listener is not supported")
		}
	}
	for i, f := range p.GetFilters() {
		if ch.HTTP != nil || ch.TCP != nil || ch.Terminate != nil {
			return nil, strict.AtIndex(strict.Errorf("", "comes after the last filter of a chain"), "filters", i)
		}
		if err := ch.filter(f); err != nil {
			return nil, strict.AtIndex(err, "filters", i)
		}
	}
	if ch.HTTP == nil && ch.TCP == nil && ch.Terminate == nil {
		return nil, strict.Errorf("filters", "must end with an HTTP connection manager or a TCP proxy")
	}
	if len(ch.external) > 0 && ch.TCP == nil {
		return nil, strict.Errorf("filters", "ext_authz is supported before a TCP proxy only")
	}
	return ch, nil
}

func (ch *Chain) filter(f *listenerv3.Filter) error {
	m, err := strict.Unpack(f.GetTypedConfig())
	if err != nil {
		return strict.At(err, "typed_config")
	}
	switch m := m.(type) {
	case *netrbacv3.RBAC:
		r, err := rbac.CompileNetwork(m)
		if err != nil {
			return strict.At(err, "typed_config")
		}
		ch.rbac = append(ch.rbac, r)
	case *netextauthzv3.ExtAuthz:
		e, err := extauthz.CompileNetwork(m)
		if err != nil {
			return strict.At(err, "typed_config")
		}
		ch.external = append(ch.external, e)
	case *netstatev3.Config:
		return strict.At(compileNetState(m), "typed_config")
	case *tcpproxyv3.TcpProxy:
		ch.TCP, err = compileTCP(m)
		return strict.At(err, "typed_config")
	case *hcmv3.HttpConnectionManager:
		h, err := compileManager(m)
		if err != nil {
			return strict.At(err, "typed_config")
		}
		if t := h.terminates(); t != "" {
			if h.asks() {
				return strict.Errorf("typed_config.http_filters", "ext_authz is not supported for the tunnel itself")
			}
			ch.Terminate = &Terminate{Cluster: t, HTTP: h}
		} else {
			ch.HTTP = h
		}
	default:
		if watches, err := observes(m); watches || err != nil {
			return strict.At(err, "typed_config")
		}
		return strict.Errorf("typed_config", "type %s is not supported here", m.ProtoReflect().Descriptor().FullName())
	}
	return nil
}
