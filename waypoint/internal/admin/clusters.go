package admin

import (
	"fmt"
	"net/http"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// clusters answers /clusters as text or JSON.
func (s *Server) clusters(w http.ResponseWriter, r *http.Request) {
	statuses := &adminv3.Clusters{}
	for _, c := range s.Bootstrap.GetStaticResources().GetClusters() {
		statuses.ClusterStatuses = append(statuses.ClusterStatuses, staticStatus(c))
	}
	for _, c := range s.Engine.Clusters() {
		statuses.ClusterStatuses = append(statuses.ClusterStatuses, dynamicStatus(c))
	}
	if r.URL.Query().Get("format") == "json" {
		s.json(w, statuses)
		return
	}
	for _, c := range statuses.GetClusterStatuses() {
		writeCluster(w, c)
	}
}

// staticStatus is of a cluster in the bootstrap: its hosts are the control plane and the proxy itself.
func staticStatus(c *clusterv3.Cluster) *adminv3.ClusterStatus {
	out := &adminv3.ClusterStatus{Name: c.GetName(), ObservabilityName: c.GetName(), CircuitBreakers: c.GetCircuitBreakers()}
	for _, locality := range c.GetLoadAssignment().GetEndpoints() {
		for _, host := range locality.GetLbEndpoints() {
			out.HostStatuses = append(out.HostStatuses, &adminv3.HostStatus{
				Address: host.GetEndpoint().GetAddress(), Weight: 1, Locality: &corev3.Locality{},
				HealthStatus: &adminv3.HostHealthStatus{EdsHealthStatus: corev3.HealthStatus_HEALTHY},
			})
		}
	}
	return out
}

func dynamicStatus(c upstream.ClusterState) *adminv3.ClusterStatus {
	out := &adminv3.ClusterStatus{Name: c.Name, ObservabilityName: c.Name, AddedViaApi: true}
	if c.Cluster != nil {
		if c.Cluster.StatName != "" {
			out.ObservabilityName = c.Cluster.StatName
		}
		out.EdsServiceName = c.Cluster.EDSName
		b := c.Cluster.Breakers
		out.CircuitBreakers = &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections: wrapperspb.UInt32(b.MaxConnections), MaxPendingRequests: wrapperspb.UInt32(b.MaxPending),
			MaxRequests: wrapperspb.UInt32(b.MaxRequests), MaxRetries: wrapperspb.UInt32(b.MaxRetries),
		}}}
	}
	for _, h := range c.Hosts {
		out.HostStatuses = append(out.HostStatuses, hostStatus(h))
	}
	return out
}

func hostStatus(h upstream.HostState) *adminv3.HostStatus {
	metric := func(name string, v uint64, kind adminv3.SimpleMetric_Type) *adminv3.SimpleMetric {
		return &adminv3.SimpleMetric{Name: name, Value: v, Type: kind}
	}
	out := &adminv3.HostStatus{
		Address: hostAddress(h), Weight: 1, Locality: &corev3.Locality{}, HealthStatus: &adminv3.HostHealthStatus{EdsHealthStatus: corev3.HealthStatus_HEALTHY},
		Stats: []*adminv3.SimpleMetric{
			metric("cx_connect_fail", h.CxConnectFail, adminv3.SimpleMetric_COUNTER), metric("cx_total", h.CxTotal, adminv3.SimpleMetric_COUNTER),
			metric("rq_error", h.RqError, adminv3.SimpleMetric_COUNTER), metric("rq_success", h.RqSuccess, adminv3.SimpleMetric_COUNTER),
			metric("rq_timeout", h.RqTimeout, adminv3.SimpleMetric_COUNTER), metric("rq_total", h.RqTotal, adminv3.SimpleMetric_COUNTER),
			metric("cx_active", h.CxActive, adminv3.SimpleMetric_GAUGE), metric("rq_active", h.RqActive, adminv3.SimpleMetric_GAUGE),
		},
	}
	if e := h.Endpoint; e != nil {
		out.Weight, out.Hostname, out.Priority = max(e.Weight, 1), e.Hostname, e.Priority
		out.Locality = &corev3.Locality{Region: e.Locality.Region, Zone: e.Locality.Zone, SubZone: e.Locality.SubZone}
		out.HealthStatus.EdsHealthStatus = map[l7.Health]corev3.HealthStatus{
			l7.Healthy: corev3.HealthStatus_HEALTHY, l7.Degraded: corev3.HealthStatus_DEGRADED,
			l7.Unhealthy: corev3.HealthStatus_UNHEALTHY, l7.Draining: corev3.HealthStatus_DRAINING,
		}[e.Health]
	}
	return out
}

// hostAddress is Envoy's form of an endpoint: a socket, or the internal listener that it is reached through.
func hostAddress(h upstream.HostState) *corev3.Address {
	e := h.Endpoint
	if e == nil {
		return nil
	}
	if e.Internal != "" {
		id := e.ID
		if id == "" && e.Address.IsValid() {
			id = e.Address.String()
		}
		return &corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
			AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: e.Internal}, EndpointId: id,
		}}}
	}
	host, port := e.Host, uint32(e.Port)
	if e.Address.IsValid() {
		host, port = e.Address.Addr().String(), uint32(e.Address.Port())
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

// addressText is how Envoy prints an address.
func addressText(a *corev3.Address) string {
	switch of := a.GetAddress().(type) {
	case *corev3.Address_Pipe:
		return of.Pipe.GetPath()
	case *corev3.Address_EnvoyInternalAddress:
		return "envoy://" + of.EnvoyInternalAddress.GetServerListenerName() + "/" + of.EnvoyInternalAddress.GetEndpointId()
	case *corev3.Address_SocketAddress:
		host := of.SocketAddress.GetAddress()
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return fmt.Sprintf("%s:%d", host, of.SocketAddress.GetPortValue())
	}
	return ""
}

// writeCluster writes the lines of one cluster.
func writeCluster(w http.ResponseWriter, c *adminv3.ClusterStatus) {
	line := func(format string, args ...any) { fmt.Fprintf(w, c.GetName()+"::"+format+"\n", args...) }
	line("observability_name::%s", c.GetObservabilityName())
	for _, t := range c.GetCircuitBreakers().GetThresholds() {
		priority := strings.ToLower(t.GetPriority().String()) + "_priority"
		line("%s::max_connections::%d", priority, t.GetMaxConnections().GetValue())
		line("%s::max_pending_requests::%d", priority, t.GetMaxPendingRequests().GetValue())
		line("%s::max_requests::%d", priority, t.GetMaxRequests().GetValue())
		line("%s::max_retries::%d", priority, t.GetMaxRetries().GetValue())
	}
	line("added_via_api::%t", c.GetAddedViaApi())
	if c.GetEdsServiceName() != "" {
		line("eds_service_name::%s", c.GetEdsServiceName())
	}
	for _, h := range c.GetHostStatuses() {
		host := func(format string, args ...any) {
			line("%s::"+format, append([]any{addressText(h.GetAddress())}, args...)...)
		}
		for _, m := range h.GetStats() {
			host("%s::%d", m.GetName(), m.GetValue())
		}
		host("hostname::%s", h.GetHostname())
		host("health_flags::%s", healthFlags(h.GetHealthStatus()))
		host("weight::%d", h.GetWeight())
		host("region::%s", h.GetLocality().GetRegion())
		host("zone::%s", h.GetLocality().GetZone())
		host("sub_zone::%s", h.GetLocality().GetSubZone())
		host("canary::false")
		host("priority::%d", h.GetPriority())
	}
}

func healthFlags(h *adminv3.HostHealthStatus) string {
	var flags []string
	switch h.GetEdsHealthStatus() {
	case corev3.HealthStatus_UNHEALTHY, corev3.HealthStatus_TIMEOUT:
		flags = append(flags, "/failed_eds_health")
	case corev3.HealthStatus_DEGRADED:
		flags = append(flags, "/degraded_eds_health")
	case corev3.HealthStatus_DRAINING:
		flags = append(flags, "/eds_status_draining")
	}
	if h.GetFailedOutlierCheck() {
		flags = append(flags, "/failed_outlier_check")
	}
	if len(flags) == 0 {
		return "healthy"
	}
	return strings.Join(flags, "")
}
