package kube

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"
	networkingapi "istio.io/api/networking/v1alpha3"
)

func (c *checker) destinationRule(spec *networkingapi.DestinationRule) {
	c.destinationHost("spec.host", spec.GetHost())
	c.exportTo(spec.GetExportTo())
	c.plainSelector("spec.workloadSelector.matchLabels", spec.GetWorkloadSelector().GetMatchLabels())
	c.trafficPolicy("spec.trafficPolicy", spec.GetTrafficPolicy())
	names := map[string]bool{}
	for i, s := range spec.GetSubsets() {
		field := fmt.Sprintf("spec.subsets[%d]", i)
		if s.GetName() == "" {
			c.bad(field+".name", "a name is required")
		} else {
			c.label(field+".name", "name of a subset", s.GetName())
		}
		if names[s.GetName()] {
			c.bad(field+".name", "%q is used twice", s.GetName())
		}
		names[s.GetName()] = true
		c.labels(field+".labels", s.GetLabels())
		c.trafficPolicy(field+".trafficPolicy", s.GetTrafficPolicy())
	}
}

func (c *checker) trafficPolicy(field string, p *networkingapi.TrafficPolicy) {
	if p == nil {
		return
	}
	c.connectionPool(field+".connectionPool", p.GetConnectionPool())
	c.loadBalancer(field+".loadBalancer", p.GetLoadBalancer())
	c.outlierDetection(field+".outlierDetection", p.GetOutlierDetection())
	c.clientTLS(field+".tls", p.GetTls())
	if b := p.GetRetryBudget(); b != nil {
		c.percent(field+".retryBudget.percent", b.GetPercent().GetValue())
	}
	if _, known := networkingapi.TrafficPolicy_ProxyProtocol_VERSION_name[int32(p.GetProxyProtocol().GetVersion())]; !known {
		c.bad(field+".proxyProtocol.version", "%d is not a version: use V1 or V2", p.GetProxyProtocol().GetVersion())
	}
	seen := map[uint32]bool{}
	for i, s := range p.GetPortLevelSettings() {
		at := fmt.Sprintf("%s.portLevelSettings[%d]", field, i)
		if s.GetPort() == nil {
			c.bad(at+".port.number", "required: which port these settings are for")
		} else {
			c.port(at+".port.number", s.GetPort().GetNumber())
		}
		if n := s.GetPort().GetNumber(); seen[n] {
			c.bad(at+".port.number", "%d is used twice", n)
		} else {
			seen[n] = true
		}
		c.connectionPool(at+".connectionPool", s.GetConnectionPool())
		c.loadBalancer(at+".loadBalancer", s.GetLoadBalancer())
		c.outlierDetection(at+".outlierDetection", s.GetOutlierDetection())
		c.clientTLS(at+".tls", s.GetTls())
	}
	if t := p.GetTunnel(); t != nil {
		if t.GetProtocol() != "" {
			c.oneOf(field+".tunnel.protocol", t.GetProtocol(), "CONNECT", "POST")
		}
		c.routedHost(field+".tunnel.targetHost", t.GetTargetHost())
		c.port(field+".tunnel.targetPort", t.GetTargetPort())
	}
}

func (c *checker) connectionPool(field string, p *networkingapi.ConnectionPoolSettings) {
	if t := p.GetTcp(); t != nil {
		c.count(field+".tcp.maxConnections", t.GetMaxConnections())
		c.duration(field+".tcp.connectTimeout", t.GetConnectTimeout(), false)
		c.duration(field+".tcp.idleTimeout", t.GetIdleTimeout(), true)
		c.duration(field+".tcp.maxConnectionDuration", t.GetMaxConnectionDuration(), false)
		c.duration(field+".tcp.tcpKeepalive.time", t.GetTcpKeepalive().GetTime(), false)
		c.duration(field+".tcp.tcpKeepalive.interval", t.GetTcpKeepalive().GetInterval(), false)
	}
	h := p.GetHttp()
	if h == nil {
		return
	}
	for _, limit := range []struct {
		name  string
		value int32
	}{
		{"http1MaxPendingRequests", h.GetHttp1MaxPendingRequests()},
		{"http2MaxRequests", h.GetHttp2MaxRequests()},
		{"maxRetries", h.GetMaxRetries()},
		{"maxRequestsPerConnection", h.GetMaxRequestsPerConnection()},
		{"maxConcurrentStreams", h.GetMaxConcurrentStreams()},
	} {
		c.count(field+".http."+limit.name, limit.value)
	}
	c.duration(field+".http.idleTimeout", h.GetIdleTimeout(), true)
	if k := h.GetHttp2KeepAlive(); k != nil {
		for _, d := range []struct {
			name, means string
			value       *durationpb.Duration
		}{{"interval", "how often a PING is sent", k.GetInterval()}, {"timeout", "how long the answer to a PING is waited for", k.GetTimeout()}} {
			if d.value == nil {
				c.bad(field+".http.http2KeepAlive."+d.name, "required: %s", d.means)
			}
			c.duration(field+".http.http2KeepAlive."+d.name, d.value, false)
		}
	}
	if h.GetH2UpgradePolicy() == networkingapi.ConnectionPoolSettings_HTTPSettings_UPGRADE && h.GetUseClientProtocol() {
		c.bad(field+".http.useClientProtocol", "cannot be combined with h2UpgradePolicy UPGRADE: remove one of the two")
	}
}

func (c *checker) outlierDetection(field string, o *networkingapi.OutlierDetection) {
	if o == nil {
		return
	}
	c.duration(field+".interval", o.GetInterval(), false)
	c.duration(field+".baseEjectionTime", o.GetBaseEjectionTime(), false)
	c.percent(field+".maxEjectionPercent", float64(o.GetMaxEjectionPercent()))
	c.percent(field+".minHealthPercent", float64(o.GetMinHealthPercent()))
	if !o.GetSplitExternalLocalOriginErrors() && o.GetConsecutiveLocalOriginFailures().GetValue() > 0 {
		c.bad(field+".consecutiveLocalOriginFailures", "needs splitExternalLocalOriginErrors: true")
	}
}

func (c *checker) loadBalancer(field string, l *networkingapi.LoadBalancerSettings) {
	if l == nil {
		return
	}
	if h := l.GetConsistentHash(); h != nil {
		c.consistentHash(field+".consistentHash", h)
	}
	if w := l.GetWarmup(); w != nil {
		if w.GetDuration() == nil {
			c.bad(field+".warmup.duration", "required: how long a new endpoint is spared")
		}
		c.duration(field+".warmup.duration", w.GetDuration(), false)
		c.percent(field+".warmup.minimumPercent", w.GetMinimumPercent().GetValue())
		if a := w.GetAggression(); a != nil && a.GetValue() < 1 {
			c.bad(field+".warmup.aggression", "%v is too small: use 1 or more", a.GetValue())
		}
	}
	c.duration(field+".warmupDurationSecs", l.GetWarmupDurationSecs(), false)
	c.locality(field+".localityLbSetting", l.GetLocalityLbSetting())
	if l.GetLocalityLbSetting() != nil && l.GetZoneAwareLbSetting() != nil {
		c.bad(field+".zoneAwareLbSetting", "cannot be combined with localityLbSetting: remove one of the two")
	}
}

func (c *checker) consistentHash(field string, h *networkingapi.LoadBalancerSettings_ConsistentHashLB) {
	switch key := h.GetHashKey().(type) {
	case nil:
		c.bad(field, "there is nothing to hash: set one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName")
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		c.headerName(field+".httpHeaderName", key.HttpHeaderName)
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		if key.HttpCookie.GetName() == "" {
			c.bad(field+".httpCookie.name", "a name is required")
		}
		c.duration(field+".httpCookie.ttl", key.HttpCookie.GetTtl(), true)
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		c.notEmpty(field+".httpQueryParameterName", key.HttpQueryParameterName)
	}
	if m := h.GetMaglev(); m != nil && (m.GetTableSize() > 5000011 || !prime(m.GetTableSize())) && m.GetTableSize() != 0 {
		c.bad(field+".maglev.tableSize", "%d is not a prime up to 5000011: use 65537", m.GetTableSize())
	}
	if r := h.GetRingHash(); r.GetMinimumRingSize() > 8<<20 {
		c.bad(field+".ringHash.minimumRingSize", "%d is too large: use up to %d", r.GetMinimumRingSize(), 8<<20)
	}
}

func prime(n uint64) bool {
	if n < 2 {
		return false
	}
	for i := uint64(2); i*i <= n; i++ {
		if n%i == 0 {
			return false
		}
	}
	return true
}

func (c *checker) locality(field string, l *networkingapi.LocalityLoadBalancerSetting) {
	if l == nil {
		return
	}
	if len(l.GetDistribute()) > 0 && len(l.GetFailover())+len(l.GetFailoverPriority()) > 0 {
		c.bad(field, "only one of distribute and failover (with failoverPriority) can be set")
	}
	for i, d := range l.GetDistribute() {
		at := fmt.Sprintf("%s.distribute[%d]", field, i)
		c.notEmpty(at+".from", d.GetFrom())
		c.localityPattern(at+".from", d.GetFrom())
		for _, to := range slices.Sorted(maps.Keys(d.GetTo())) {
			c.localityPattern(at+".to", to)
		}
		total := uint64(0)
		for _, share := range d.GetTo() {
			total += uint64(share)
		}
		if total != 100 {
			c.bad(at+".to", "the shares are %d together, and must be 100", total)
		}
	}
	for i, f := range l.GetFailover() {
		at := fmt.Sprintf("%s.failover[%d]", field, i)
		if f.GetFrom() == f.GetTo() {
			c.bad(at+".to", "%q is where the traffic comes from: name another region", f.GetTo())
		}
		for name, region := range map[string]string{"from": f.GetFrom(), "to": f.GetTo()} {
			if region == "" || strings.ContainsAny(region, "*/") {
				c.bad(at+"."+name, "%q is not a region", region)
			}
		}
	}
}

// localityPattern is region/zone/subzone; after a part that is * or missing there may be none that is not.
func (c *checker) localityPattern(field, pattern string) {
	parts := strings.Split(pattern, "/")
	if len(parts) > 3 {
		c.bad(field, "%q has more parts than region/zone/subzone", pattern)
		return
	}
	for i, part := range parts {
		if i > 0 && part != "*" && parts[i-1] == "*" {
			c.bad(field, "%q: only * can follow *", pattern)
			return
		}
	}
}

// clientCRL is about the file with lists of revoked certificates.
func (c *checker) clientCRL(field string, t *networkingapi.ClientTLSSettings) {
	verifies := t.GetMode() == networkingapi.ClientTLSSettings_SIMPLE || t.GetMode() == networkingapi.ClientTLSSettings_MUTUAL
	switch {
	case t.GetCaCrl() == "":
	case verifies && t.GetCredentialName() != "":
		c.bad(field+".caCrl", "cannot be combined with credentialName: put the list into the Secret, under ca.crl beside ca.crt, or crl beside cacert")
	case !verifies || t.GetInsecureSkipVerify().GetValue():
		c.warn(field+".caCrl", "has no effect: the server's certificate is not verified with authorities of its own, as in modes SIMPLE and MUTUAL")
	}
}

func (c *checker) clientTLS(field string, t *networkingapi.ClientTLSSettings) {
	if t == nil {
		return
	}
	files := t.GetClientCertificate() != "" || t.GetPrivateKey() != ""
	c.clientCRL(field, t)
	switch t.GetMode() {
	case networkingapi.ClientTLSSettings_MUTUAL:
		switch {
		case t.GetCredentialName() != "" && (files || t.GetCaCertificates() != ""):
			c.bad(field+".credentialName", "cannot be combined with clientCertificate, privateKey and caCertificates: remove either")
		case t.GetCredentialName() != "":
		case t.GetClientCertificate() == "":
			c.bad(field+".clientCertificate", "required for mode MUTUAL, or a credentialName")
		case t.GetPrivateKey() == "":
			c.bad(field+".privateKey", "required for mode MUTUAL, or a credentialName")
		}
	case networkingapi.ClientTLSSettings_ISTIO_MUTUAL:
		if files || t.GetCaCertificates() != "" || t.GetCredentialName() != "" {
			c.bad(field+".mode", "ISTIO_MUTUAL uses the mesh's certificates: remove the others, or use mode MUTUAL")
		}
	case networkingapi.ClientTLSSettings_DISABLE, networkingapi.ClientTLSSettings_SIMPLE:
		if files {
			c.bad(field+".clientCertificate", "no certificate is shown in mode %s: use mode MUTUAL", t.GetMode())
		}
	default:
		c.bad(field+".mode", "%d is not a mode: use DISABLE, SIMPLE, MUTUAL or ISTIO_MUTUAL", t.GetMode())
	}
	if t.GetInsecureSkipVerify().GetValue() && (t.GetCaCertificates() != "" || len(t.GetSubjectAltNames()) > 0) {
		c.bad(field+".insecureSkipVerify", "cannot be combined with caCertificates and subjectAltNames, which verify")
	}
	if slices.Contains(t.GetSubjectAltNames(), "") {
		c.bad(field+".subjectAltNames", "an empty name is not allowed")
	}
}
