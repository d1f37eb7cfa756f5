package envoy

import (
	"cmp"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networkingapi "istio.io/api/networking/v1alpha3"
)

// rulePath names a DestinationRule as Istio does.
func rulePath(key string) string {
	ns, name, _ := strings.Cut(key, "/")
	return "/apis/networking.istio.io/v1/namespaces/" + ns + "/destination-rule/" + name
}

// EffectivePolicy is what a DestinationRule says of a port: of the service, or of a subset of it. A subset's settings replace the
// rule's one by one; those of a port replace all of them.
func EffectivePolicy(rule, subset *networkingapi.TrafficPolicy, port uint32) *networkingapi.TrafficPolicy {
	return merge(merge(nil, rule, port), subset, port)
}

func merge(base, over *networkingapi.TrafficPolicy, port uint32) *networkingapi.TrafficPolicy {
	if over == nil {
		return base
	}
	out := &networkingapi.TrafficPolicy{}
	if base != nil {
		out.LoadBalancer, out.ConnectionPool, out.OutlierDetection = base.LoadBalancer, base.ConnectionPool, base.OutlierDetection
		out.Tls, out.ProxyProtocol, out.RetryBudget = base.Tls, base.ProxyProtocol, base.RetryBudget
	}
	if over.LoadBalancer != nil {
		out.LoadBalancer = over.LoadBalancer
	}
	if over.ConnectionPool != nil {
		out.ConnectionPool = over.ConnectionPool
	}
	if over.OutlierDetection != nil {
		out.OutlierDetection = over.OutlierDetection
	}
	if over.Tls != nil {
		out.Tls = over.Tls
	}
	if over.ProxyProtocol != nil {
		out.ProxyProtocol = over.ProxyProtocol
	}
	if over.RetryBudget != nil {
		out.RetryBudget = over.RetryBudget
	}
	for _, p := range over.PortLevelSettings {
		if p.GetPort() != nil && p.GetPort().GetNumber() == port {
			out.LoadBalancer, out.ConnectionPool, out.OutlierDetection, out.Tls = p.LoadBalancer, p.ConnectionPool, p.OutlierDetection, p.Tls
		}
	}
	return out
}

// applyPolicy puts the traffic policy into the cluster.
func (c Cluster) applyPolicy(out *clusterv3.Cluster) {
	pool := c.Policy.GetConnectionPool()
	c.applyLimits(out, pool)
	c.applyKeepalive(out, pool.GetTcp().GetTcpKeepalive())
	c.applyBalancer(out, c.Policy.GetLoadBalancer())
	applyOutlier(out, c.Policy.GetOutlierDetection())
	c.applyLocalities(out)
	c.applyDraining(out)
	applyRetryBudget(out, c.Policy.GetRetryBudget())
	if options := c.httpOptions(pool); options != nil && !c.Proxyless {
		out.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpOptions: pack(options)}
	}
	if c.Proxyless {
		return
	}
	defer c.applyProxyProtocol(out)
	if c.Resolution == ByEndpoints && out.GetType() == clusterv3.Cluster_EDS {
		out.TransportSocketMatches = c.transports()
		return
	}
	switch own := c.originatedTLS(); {
	case own != nil:
		out.TransportSocket = own
	case c.Policy.GetTls().GetMode() == networkingapi.ClientTLSSettings_ISTIO_MUTUAL:
		out.TransportSocket = c.mutualTLS()
	default:
		out.TransportSocket = rawBuffer()
	}
}

func (c Cluster) applyLimits(out *clusterv3.Cluster, pool *networkingapi.ConnectionPoolSettings) {
	limits := out.CircuitBreakers.Thresholds[0]
	set := func(field **wrapperspb.UInt32Value, value int32) {
		if value > 0 {
			*field = u32(uint32(value))
		}
	}
	set(&limits.MaxConnections, pool.GetTcp().GetMaxConnections())
	set(&limits.MaxPendingRequests, pool.GetHttp().GetHttp1MaxPendingRequests())
	set(&limits.MaxRequests, pool.GetHttp().GetHttp2MaxRequests())
	set(&limits.MaxRetries, pool.GetHttp().GetMaxRetries())
	if d := pool.GetTcp().GetConnectTimeout(); d != nil {
		out.ConnectTimeout = d
	}
}

func (c Cluster) applyKeepalive(out *clusterv3.Cluster, k *networkingapi.ConnectionPoolSettings_TCPSettings_TcpKeepalive) {
	if k == nil {
		k = c.Mesh.Config.GetTcpKeepalive()
	}
	if k == nil {
		return
	}
	alive := &corev3.TcpKeepalive{}
	if k.GetProbes() > 0 {
		alive.KeepaliveProbes = u32(k.GetProbes())
	}
	if k.GetTime() != nil {
		alive.KeepaliveTime = u32(uint32(k.GetTime().GetSeconds()))
	}
	if k.GetInterval() != nil {
		alive.KeepaliveInterval = u32(uint32(k.GetInterval().GetSeconds()))
	}
	out.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: alive}
}

// httpOptions says which HTTP the upstream speaks, and how long its connections are used; nil is HTTP/1.1 by default.
func (c Cluster) httpOptions(pool *networkingapi.ConnectionPoolSettings) *httpv3.HttpProtocolOptions {
	h := pool.GetHttp()
	http2 := &corev3.Http2ProtocolOptions{AllowConnect: true}
	if n := h.GetMaxConcurrentStreams(); n > 0 {
		http2.MaxConcurrentStreams = u32(uint32(n))
	}
	if k := h.GetHttp2KeepAlive(); k.GetInterval().AsDuration() > 0 {
		// Envoy refuses what is shorter than a millisecond.
		interval := max(k.GetInterval().AsDuration(), time.Millisecond)
		http2.ConnectionKeepalive = &corev3.KeepaliveSettings{
			Interval: durationpb.New(interval), Timeout: durationpb.New(max(cmp.Or(k.GetTimeout().AsDuration(), interval), time.Millisecond)),
		}
	}
	out := &httpv3.HttpProtocolOptions{CommonHttpProtocolOptions: commonHTTP(pool)}
	switch {
	case !c.Protocol.HTTP():
		return nil
	case h.GetUseClientProtocol(), c.Protocol == Unknown:
		out.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &httpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions: &corev3.Http1ProtocolOptions{}, Http2ProtocolOptions: http2,
			},
		}
	case c.Protocol == HTTP2, c.upgrades(h):
		out.UpstreamProtocolOptions = explicitHTTP2(http2)
	default:
		out.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}},
			},
		}
	}
	return out
}

// upgrades reports whether HTTP/1.1 is to be upgraded to HTTP/2.
func (c Cluster) upgrades(h *networkingapi.ConnectionPoolSettings_HTTPSettings) bool {
	switch h.GetH2UpgradePolicy() {
	case networkingapi.ConnectionPoolSettings_HTTPSettings_UPGRADE:
		return true
	case networkingapi.ConnectionPoolSettings_HTTPSettings_DO_NOT_UPGRADE:
		return false
	}
	return c.Mesh.Config.GetH2UpgradePolicy().String() == "UPGRADE"
}

func commonHTTP(pool *networkingapi.ConnectionPoolSettings) *corev3.HttpProtocolOptions {
	out := &corev3.HttpProtocolOptions{IdleTimeout: pool.GetHttp().GetIdleTimeout(), MaxConnectionDuration: pool.GetTcp().GetMaxConnectionDuration()}
	if n := pool.GetHttp().GetMaxRequestsPerConnection(); n > 0 {
		out.MaxRequestsPerConnection = u32(uint32(n))
	}
	if out.IdleTimeout == nil && out.MaxConnectionDuration == nil && out.MaxRequestsPerConnection == nil {
		return nil
	}
	return out
}

func (c Cluster) applyBalancer(out *clusterv3.Cluster, lb *networkingapi.LoadBalancerSettings) {
	if out.GetType() == clusterv3.Cluster_ORIGINAL_DST {
		return
	}
	switch policy := lb.GetLbPolicy().(type) {
	case *networkingapi.LoadBalancerSettings_Simple:
		c.applySimple(out, policy.Simple, Warmup(lb))
	case *networkingapi.LoadBalancerSettings_ConsistentHash:
		applyHash(out, policy.ConsistentHash)
	default:
		c.applySimple(out, networkingapi.LoadBalancerSettings_UNSPECIFIED, Warmup(lb))
	}
}

func (c Cluster) applySimple(out *clusterv3.Cluster, simple networkingapi.LoadBalancerSettings_SimpleLB, warmup *networkingapi.WarmupConfiguration) {
	slow := slowStart(warmup)
	switch simple.String() {
	case "ROUND_ROBIN":
		out.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
		if slow != nil {
			out.LbConfig = &clusterv3.Cluster_RoundRobinLbConfig_{RoundRobinLbConfig: &clusterv3.Cluster_RoundRobinLbConfig{SlowStartConfig: slow}}
		}
	case "RANDOM":
		out.LbPolicy = clusterv3.Cluster_RANDOM
	case "PASSTHROUGH":
		originalDestinationCluster(out)
	default: // LEAST_REQUEST and its older name
		if c.Proxyless {
			return // gRPC has it only on request
		}
		out.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
		if slow != nil {
			out.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{SlowStartConfig: slow}}
		}
	}
}

// Warmup is how long, and how, new endpoints are spared; nil for not at all.
func Warmup(lb *networkingapi.LoadBalancerSettings) *networkingapi.WarmupConfiguration {
	if w := lb.GetWarmup(); w != nil {
		return w
	}
	if d := lb.GetWarmupDurationSecs(); d != nil { // the older way to ask for it
		return &networkingapi.WarmupConfiguration{Duration: d}
	}
	return nil
}

func slowStart(w *networkingapi.WarmupConfiguration) *clusterv3.Cluster_SlowStartConfig {
	if w.GetDuration() == nil {
		return nil
	}
	out := &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: w.GetDuration()}
	if w.GetMinimumPercent() != nil {
		out.MinWeightPercent = &typev3.Percent{Value: w.GetMinimumPercent().GetValue()}
	}
	if w.GetAggression() != nil {
		out.Aggression = &corev3.RuntimeDouble{DefaultValue: w.GetAggression().GetValue()}
	}
	return out
}

// applyLocalities lets the weights of localities count. Where endpoints that are not ready are known, too, none of them is used however
// many there are.
func (c Cluster) applyLocalities(out *clusterv3.Cluster) {
	localities := c.Mesh.Localities(c.Policy, c.Prefers)
	if c.Proxyless || !localities.Weighted() || out.GetType() == clusterv3.Cluster_ORIGINAL_DST {
		return
	}
	out.CommonLbConfig.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
		LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
	}
	if localities.Failover() && out.CommonLbConfig.HealthyPanicThreshold == nil {
		out.CommonLbConfig.HealthyPanicThreshold = &typev3.Percent{}
	}
}

// defaultRingSize is Istio's.
const defaultRingSize = 1024

func applyHash(out *clusterv3.Cluster, hash *networkingapi.LoadBalancerSettings_ConsistentHashLB) {
	if maglev := hash.GetMaglev(); maglev != nil {
		out.LbPolicy = clusterv3.Cluster_MAGLEV
		if maglev.GetTableSize() > 0 {
			out.LbConfig = &clusterv3.Cluster_MaglevLbConfig_{MaglevLbConfig: &clusterv3.Cluster_MaglevLbConfig{TableSize: wrapperspb.UInt64(maglev.GetTableSize())}}
		}
		return
	}
	size := hash.GetRingHash().GetMinimumRingSize()
	if size == 0 {
		size = hash.GetMinimumRingSize() //nolint:staticcheck // the older place of the same setting
	}
	if size == 0 {
		size = defaultRingSize
	}
	out.LbPolicy = clusterv3.Cluster_RING_HASH
	out.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{MinimumRingSize: wrapperspb.UInt64(size)}}
}

func applyOutlier(out *clusterv3.Cluster, o *networkingapi.OutlierDetection) {
	if o == nil {
		return
	}
	d := &clusterv3.OutlierDetection{EnforcingSuccessRate: u32(0)}
	if n := o.GetConsecutiveErrors(); n > 0 { //nolint:staticcheck // the older name of gateway errors
		d.ConsecutiveGatewayFailure, d.EnforcingConsecutiveGatewayFailure, d.EnforcingConsecutive_5Xx = u32(uint32(n)), u32(100), u32(0)
	}
	if n := o.GetConsecutive_5XxErrors(); n != nil {
		d.Consecutive_5Xx, d.EnforcingConsecutive_5Xx = u32(n.GetValue()), u32(enforced(n))
	}
	if n := o.GetConsecutiveGatewayErrors(); n != nil {
		d.ConsecutiveGatewayFailure, d.EnforcingConsecutiveGatewayFailure = u32(n.GetValue()), u32(enforced(n))
	}
	d.Interval, d.BaseEjectionTime = o.GetInterval(), o.GetBaseEjectionTime()
	if n := o.GetMaxEjectionPercent(); n > 0 {
		d.MaxEjectionPercent = u32(uint32(n))
	}
	if o.GetSplitExternalLocalOriginErrors() {
		d.SplitExternalLocalOriginErrors = true
		if n := o.GetConsecutiveLocalOriginFailures(); n != nil {
			d.ConsecutiveLocalOriginFailure, d.EnforcingConsecutiveLocalOriginFailure = u32(n.GetValue()), u32(enforced(n))
		}
		d.EnforcingLocalOriginSuccessRate = u32(0)
	}
	out.OutlierDetection = d
	// Below this share of healthy hosts ejections are ignored; Istio's default is never.
	out.CommonLbConfig.HealthyPanicThreshold = &typev3.Percent{Value: float64(o.GetMinHealthPercent())}
}

// enforced is in percent: zero errors switch a detection off.
func enforced(n *wrapperspb.UInt32Value) uint32 {
	if n.GetValue() == 0 {
		return 0
	}
	return 100
}

// applyDraining has sessions stay with endpoints that drain, which get nothing else: not even when most of them do.
func (c Cluster) applyDraining(out *clusterv3.Cluster) {
	if !c.Drains || out.GetType() != clusterv3.Cluster_EDS {
		return
	}
	out.CommonLbConfig.OverrideHostStatus = &corev3.HealthStatusSet{Statuses: []corev3.HealthStatus{
		corev3.HealthStatus_UNKNOWN, corev3.HealthStatus_HEALTHY, corev3.HealthStatus_DEGRADED, corev3.HealthStatus_DRAINING,
	}}
	if out.CommonLbConfig.HealthyPanicThreshold == nil {
		out.CommonLbConfig.HealthyPanicThreshold = &typev3.Percent{}
	}
}

// defaultMinRetries are those that a budget allows however few requests there are, unless it says otherwise.
const defaultMinRetries = 3

func applyRetryBudget(out *clusterv3.Cluster, b *networkingapi.TrafficPolicy_RetryBudget) {
	if b == nil {
		return
	}
	limits := out.CircuitBreakers.Thresholds[0]
	limits.MaxRetries = nil
	limits.RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{MinRetryConcurrency: u32(cmp.Or(b.GetMinRetryConcurrency(), defaultMinRetries))}
	if p := b.GetPercent(); p != nil {
		limits.RetryBudget.BudgetPercent = &typev3.Percent{Value: p.GetValue()}
	}
}
