package ambient

import (
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

// appProtocol is what a port speaks: by its appProtocol if that is known, else by the prefix of its name.
func appProtocol(declared *string, portName string) workload.AppProtocol {
	if declared != nil {
		if p := protocolByName(strings.TrimPrefix(strings.ToLower(*declared), "kubernetes.io/")); p != workload.AppProtocol_UNKNOWN {
			return p
		}
	}
	prefix := strings.ToLower(portName)
	if p := protocolByName(prefix); p != workload.AppProtocol_UNKNOWN {
		return p
	}
	if strings.HasPrefix(prefix, "grpc-web-") {
		return workload.AppProtocol_HTTP11
	}
	prefix, _, _ = strings.Cut(prefix, "-")
	return protocolByName(prefix)
}

func protocolByName(name string) workload.AppProtocol {
	switch name {
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
