package l7

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// meshMetadata is the namespace of metadata that is meant for us only: Envoy ignores it.
const meshMetadata = "isthmus.mesh"

// originalDst is the namespace of the metadata of endpoints behind an internal listener: {local: POD:9080, waypoint: IP:15008}.
const originalDst = "envoy.filters.listener.original_dst"

func compileCluster(p *clusterv3.Cluster) (*Cluster, error) {
	if err := strict.Check(p); err != nil {
		return nil, err
	}
	if p.GetName() == "" {
		return nil, strict.Errorf("name", "is required")
	}
	c := &Cluster{
		Name: p.GetName(), StatName: p.GetAltStatName(), Connect: duration(p.GetConnectTimeout(), 5*time.Second),
		Breakers:             breakers(p.GetCircuitBreakers()),
		Outlier:              outlier(p.GetOutlierDetection()),
		DNSRefresh:           duration(p.GetDnsRefreshRate(), 5*time.Second), //nolint:staticcheck // deprecated, and still sent
		CloseOnHealthFailure: p.GetCloseConnectionsOnHostHealthFailure(),
		Idle:                 time.Hour,
	}
	if c.StatName == "" {
		c.StatName = c.Name
	}
	if o := p.GetOutlierDetection(); o != nil && uint32Or(o.GetEnforcingSuccessRate(), 100) > 0 {
		return nil, strict.Errorf("outlier_detection.enforcing_success_rate", "must be 0: ejection by success rate is not supported")
	}
	if err := c.discovery(p); err != nil {
		return nil, err
	}
	if err := c.balancing(p); err != nil {
		return nil, err
	}
	if err := c.protocols(p); err != nil {
		return nil, err
	}
	if err := c.sockets(p); err != nil {
		return nil, err
	}
	if k := p.GetUpstreamConnectionOptions().GetTcpKeepalive(); k != nil {
		c.KeepaliveProbes = uint32Or(k.GetKeepaliveProbes(), 9)
		c.KeepaliveIdle = time.Duration(uint32Or(k.GetKeepaliveTime(), 7200)) * time.Second
		c.KeepaliveInterval = time.Duration(uint32Or(k.GetKeepaliveInterval(), 75)) * time.Second
	}
	c.services(p.GetMetadata())
	own := p.GetMetadata().GetFilterMetadata()[meshMetadata].GetFields()
	c.AnyIdentity, c.LocalEndpoints = text(own, "endpoint_identity") == "trust-domain", text(own, "local_endpoints") == "allow"
	c.BackendTLSPolicy, c.Refused = text(own, "backend_tls_policy"), text(own, "refused")
	return c, nil
}

func (c *Cluster) discovery(p *clusterv3.Cluster) error {
	switch p.GetType() {
	case clusterv3.Cluster_STATIC:
		c.Discovery = DiscoveryStatic
	case clusterv3.Cluster_EDS:
		c.Discovery = DiscoveryEDS
		if c.EDSName = p.GetEdsClusterConfig().GetServiceName(); c.EDSName == "" {
			c.EDSName = c.Name
		}
		return nil
	case clusterv3.Cluster_ORIGINAL_DST:
		c.Discovery = DiscoveryOriginalDst
		o := p.GetOriginalDstLbConfig()
		if o.GetUseHttpHeader() {
			return strict.Errorf("original_dst_lb_config.use_http_header", "is not supported")
		}
		if k := o.GetMetadataKey(); k != nil {
			if k.GetKey() != originalDst || len(k.GetPath()) != 1 || k.GetPath()[0].GetKey() != "waypoint" {
				return strict.Errorf("original_dst_lb_config.metadata_key", "must be %s: waypoint", originalDst)
			}
			c.ByWaypoint = true
		}
		c.PortOverride = uint16(o.GetUpstreamPortOverride().GetValue()) //nolint:gosec // a port
		return nil
	case clusterv3.Cluster_STRICT_DNS:
		c.Discovery = DiscoveryStrictDNS
	case clusterv3.Cluster_LOGICAL_DNS:
		c.Discovery = DiscoveryLogicalDNS
	default:
		return strict.Errorf("type", "%v is not supported", p.GetType())
	}
	eps, err := compileEndpointsChecked(p.GetLoadAssignment(), c.Discovery != DiscoveryStatic)
	c.Static = eps
	return strict.At(err, "load_assignment")
}

func (c *Cluster) balancing(p *clusterv3.Cluster) error {
	common := p.GetCommonLbConfig()
	c.LB = LB{
		Choices: 2, PanicThreshold: 50, MinRing: 1024, MaxRing: 8 << 20, Table: 65537, SlowStartAggression: 1, SlowStartMin: 10,
		LocalityWeighted: common.GetLocalityWeightedLbConfig() != nil, HashHostname: common.GetConsistentHashingLbConfig().GetUseHostnameForHashing(),
	}
	c.LB.sessionHealth(common.GetOverrideHostStatus())
	if t := common.GetHealthyPanicThreshold(); t != nil {
		c.LB.PanicThreshold = t.GetValue()
	}
	var slow *clusterv3.Cluster_SlowStartConfig
	switch p.GetLbPolicy() {
	case clusterv3.Cluster_ROUND_ROBIN:
		c.LB.Policy, slow = LBRoundRobin, p.GetRoundRobinLbConfig().GetSlowStartConfig()
	case clusterv3.Cluster_LEAST_REQUEST:
		l := p.GetLeastRequestLbConfig()
		c.LB.Policy, slow = LBLeastRequest, l.GetSlowStartConfig()
		c.LB.Choices = uint32Or(l.GetChoiceCount(), 2)
	case clusterv3.Cluster_RANDOM:
		c.LB.Policy = LBRandom
	case clusterv3.Cluster_RING_HASH:
		r := p.GetRingHashLbConfig()
		if r.GetHashFunction() != clusterv3.Cluster_RingHashLbConfig_XX_HASH {
			return strict.Errorf("ring_hash_lb_config.hash_function", "%v is not supported", r.GetHashFunction())
		}
		c.LB.Policy = LBRingHash
		if v := r.GetMinimumRingSize(); v != nil {
			c.LB.MinRing = v.GetValue()
		}
		if v := r.GetMaximumRingSize(); v != nil {
			c.LB.MaxRing = v.GetValue()
		}
	case clusterv3.Cluster_MAGLEV:
		c.LB.Policy = LBMaglev
		if v := p.GetMaglevLbConfig().GetTableSize(); v != nil {
			c.LB.Table = v.GetValue()
		}
	case clusterv3.Cluster_CLUSTER_PROVIDED:
		c.LB.Policy = LBClusterProvided
	default:
		return strict.Errorf("lb_policy", "%v is not supported", p.GetLbPolicy())
	}
	if slow != nil {
		c.LB.SlowStart = duration(slow.GetSlowStartWindow(), 0)
		if a := slow.GetAggression(); a != nil {
			c.LB.SlowStartAggression = a.GetDefaultValue()
		}
		if m := slow.GetMinWeightPercent(); m != nil {
			c.LB.SlowStartMin = m.GetValue()
		}
	}
	return nil
}

// sessionHealth is of hosts that are healthy or degraded, unless the set says otherwise.
func (l *LB) sessionHealth(p *corev3.HealthStatusSet) {
	if p == nil {
		l.SessionHealth[Healthy], l.SessionHealth[Degraded] = true, true
	}
	for _, s := range p.GetStatuses() {
		l.SessionHealth[healthOf(s)] = true
	}
}

func (c *Cluster) protocols(p *clusterv3.Cluster) error {
	if err := c.common(p.GetCommonHttpProtocolOptions()); err != nil { //nolint:staticcheck // deprecated, and still sent
		return strict.At(err, "common_http_protocol_options")
	}
	c.MaxPerConn = max(c.MaxPerConn, p.GetMaxRequestsPerConnection().GetValue()) //nolint:staticcheck // deprecated, and still sent
	if o := p.GetHttp2ProtocolOptions(); o != nil {                              //nolint:staticcheck // deprecated, and still sent
		c.HTTP, c.HTTP2 = UpstreamHTTP2, http2Options(o)
	}
	for name, a := range p.GetTypedExtensionProtocolOptions() {
		o, err := unpack[*upstreamhttpv3.HttpProtocolOptions](a)
		if err != nil {
			return strict.AtKey(err, "typed_extension_protocol_options", name)
		}
		if err := c.common(o.GetCommonHttpProtocolOptions()); err != nil {
			return strict.AtKey(strict.At(err, "common_http_protocol_options"), "typed_extension_protocol_options", name)
		}
		switch k := o.GetUpstreamProtocolOptions().(type) {
		case *upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_:
			if h2 := k.ExplicitHttpConfig.GetHttp2ProtocolOptions(); h2 != nil {
				c.HTTP, c.HTTP2 = UpstreamHTTP2, http2Options(h2)
			} else {
				c.HTTP = UpstreamHTTP1
			}
		case *upstreamhttpv3.HttpProtocolOptions_UseDownstreamProtocolConfig:
			c.HTTP = UpstreamSame
			c.HTTP2 = http2Options(k.UseDownstreamProtocolConfig.GetHttp2ProtocolOptions())
		case *upstreamhttpv3.HttpProtocolOptions_AutoConfig:
			c.HTTP = UpstreamAuto
			c.HTTP2 = http2Options(k.AutoConfig.GetHttp2ProtocolOptions())
		}
	}
	return nil
}

func (c *Cluster) common(o *corev3.HttpProtocolOptions) error {
	if o == nil {
		return nil
	}
	if o.GetMaxStreamDuration() != nil || o.GetMaxHeadersCount() != nil {
		return strict.Errorf("", "max_stream_duration and max_headers_count are not supported for upstreams")
	}
	c.Idle = duration(o.GetIdleTimeout(), time.Hour)
	c.MaxLife = duration(o.GetMaxConnectionDuration(), 0)
	c.MaxPerConn = max(c.MaxPerConn, o.GetMaxRequestsPerConnection().GetValue())
	return nil
}

func http2Options(o *corev3.Http2ProtocolOptions) HTTP2Options {
	return HTTP2Options{
		MaxStreams: o.GetMaxConcurrentStreams().GetValue(), StreamWindow: o.GetInitialStreamWindowSize().GetValue(),
		ConnWindow: o.GetInitialConnectionWindowSize().GetValue(), AllowConnect: o.GetAllowConnect(),
		KeepaliveInterval: duration(o.GetConnectionKeepalive().GetInterval(), 0),
		KeepaliveTimeout:  duration(o.GetConnectionKeepalive().GetTimeout(), 0),
	}
}

func breakers(p *clusterv3.CircuitBreakers) Breakers {
	b := Breakers{MaxConnections: 1024, MaxPending: 1024, MaxRequests: 1024, MaxRetries: 3}
	for _, t := range p.GetThresholds() {
		if t.GetPriority() != corev3.RoutingPriority_DEFAULT {
			continue
		}
		b.MaxConnections = uint32Or(t.GetMaxConnections(), b.MaxConnections)
		b.MaxPending = uint32Or(t.GetMaxPendingRequests(), b.MaxPending)
		b.MaxRequests = uint32Or(t.GetMaxRequests(), b.MaxRequests)
		b.MaxRetries = uint32Or(t.GetMaxRetries(), b.MaxRetries)
		b.MaxPools = t.GetMaxConnectionPools().GetValue()
		b.TrackRemaining = t.GetTrackRemaining()
		if r := t.GetRetryBudget(); r != nil {
			b.BudgetPercent, b.MinRetries = 20, uint32Or(r.GetMinRetryConcurrency(), 3)
			if v := r.GetBudgetPercent(); v != nil {
				b.BudgetPercent = v.GetValue()
			}
		}
	}
	for _, t := range p.GetPerHostThresholds() {
		b.PerHostMaxConns = t.GetMaxConnections().GetValue()
	}
	return b
}

func outlier(p *clusterv3.OutlierDetection) *Outlier {
	if p == nil {
		return nil
	}
	o := &Outlier{
		SplitLocal: p.GetSplitExternalLocalOriginErrors(), Interval: duration(p.GetInterval(), 10*time.Second),
		BaseEjection: duration(p.GetBaseEjectionTime(), 30*time.Second), Jitter: duration(p.GetMaxEjectionTimeJitter(), 0),
		MaxEjectionPercent: uint32Or(p.GetMaxEjectionPercent(), 10),
	}
	o.MaxEjection = duration(p.GetMaxEjectionTime(), max(300*time.Second, o.BaseEjection))
	if uint32Or(p.GetEnforcingConsecutive_5Xx(), 100) > 0 {
		o.Consecutive5xx = uint32Or(p.GetConsecutive_5Xx(), 5)
	}
	if uint32Or(p.GetEnforcingConsecutiveGatewayFailure(), 0) > 0 {
		o.ConsecutiveGateway = uint32Or(p.GetConsecutiveGatewayFailure(), 5)
	}
	if o.SplitLocal && uint32Or(p.GetEnforcingConsecutiveLocalOriginFailure(), 100) > 0 {
		o.ConsecutiveLocal = uint32Or(p.GetConsecutiveLocalOriginFailure(), 5)
	}
	return o
}

// services reads filter_metadata.istio: {services: [{host, name, namespace}], subset}.
func (c *Cluster) services(md *corev3.Metadata) {
	istio := md.GetFilterMetadata()["istio"].GetFields()
	c.Subset = istio["subset"].GetStringValue()
	for _, v := range istio["services"].GetListValue().GetValues() {
		f := v.GetStructValue().GetFields()
		c.Services = append(c.Services, Service{Host: text(f, "host"), Name: text(f, "name"), Namespace: text(f, "namespace")})
	}
}

func text(fields map[string]*structpb.Value, key string) string { return fields[key].GetStringValue() }
