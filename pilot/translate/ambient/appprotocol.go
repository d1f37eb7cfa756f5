package ambient

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

// Ports whose servers speak first, or not at all until they are asked in their own way: what they speak is not to be found out from a
// connection's first bytes.
const (
	portSMTP    = 25
	portDNS     = 53
	portMySQL   = 3306
	portMongoDB = 27017
)

// servicePortProtocol is what a port speaks: by its appProtocol if it has one, known or not, else by the prefix of its name.
func servicePortProtocol(p *corev1.ServicePort) workload.AppProtocol {
	name := strings.ToLower(p.Name)
	if p.AppProtocol != nil && *p.AppProtocol != "" {
		name = strings.TrimPrefix(strings.ToLower(*p.AppProtocol), "kubernetes.io/")
	}
	known := protocolByName(name)
	if known == workload.AppProtocol_UNKNOWN {
		known = protocolByPrefix(name)
	}
	if known == workload.AppProtocol_UNKNOWN {
		switch p.Port {
		case portSMTP, portDNS, portMySQL, portMongoDB:
			known = workload.AppProtocol_TCP
		}
	}
	return known
}

func protocolByPrefix(name string) workload.AppProtocol {
	if strings.HasPrefix(name, "grpc-web-") {
		return workload.AppProtocol_HTTP11
	}
	prefix, _, _ := strings.Cut(name, "-")
	return protocolByName(prefix)
}

// protocolByName reads a protocol's name in any case. Protocols that only their own clients can tell from others are TCP to the mesh.
func protocolByName(name string) workload.AppProtocol {
	switch strings.ToLower(name) {
	case "http", "ws", "http-proxy", "http_proxy", "grpc-web":
		return workload.AppProtocol_HTTP11
	case "http2", "h2c":
		return workload.AppProtocol_HTTP2
	case "grpc":
		return workload.AppProtocol_GRPC
	case "tls", "https", "wss", "hbone":
		return workload.AppProtocol_TLS
	case "tcp", "mongo", "mysql", "redis", "postgres", "postgresql":
		return workload.AppProtocol_TCP
	}
	return workload.AppProtocol_UNKNOWN
}
