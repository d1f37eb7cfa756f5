package gateway

import (
	"strconv"
	"strings"
)

const defaultDomain = "cluster.local"

// WaypointCluster names the cluster of a service that the proxy itself serves: inbound-vip|9080|http/v1|host. protocol is http or
// tcp.
func WaypointCluster(host string, port uint32, protocol, subset string) string {
	if subset != "" {
		protocol += "/" + subset
	}
	return "inbound-vip|" + strconv.FormatUint(uint64(port), 10) + "|" + protocol + "|" + host
}

// OutboundCluster names the cluster of any other service: outbound|9080|v1|host.
func OutboundCluster(host string, port uint32, subset string) string {
	return "outbound|" + strconv.FormatUint(uint64(port), 10) + "|" + subset + "|" + host
}

// FullHost makes a host name of a VirtualService full: a name without a dot is one of the namespace.
func (m Mesh) FullHost(host, namespace string) string {
	if host == "*" || strings.Contains(host, ".") {
		return host
	}
	return m.ServiceHost(host, namespace)
}

// ServiceHost is the full host name of a Service of Kubernetes.
func (m Mesh) ServiceHost(name, namespace string) string {
	domain := m.Domain
	if domain == "" {
		domain = defaultDomain
	}
	return name + "." + namespace + ".svc." + domain
}
