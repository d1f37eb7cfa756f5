package analysis

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Protocol is what a port is declared to speak, in lower case; empty when nothing is declared, or nothing that is known.
type Protocol string

// HTTP tells whether requests are routed.
func (p Protocol) HTTP() bool {
	switch p {
	case "http", "http2", "grpc", "grpc-web", "h2c", "ws":
		return true
	}
	return false
}

// ServicePort returns what the port of a Service speaks: its appProtocol counts, known or not, before the prefix of its name.
func ServicePort(p corev1.ServicePort) Protocol {
	if p.Protocol == corev1.ProtocolUDP {
		return "udp"
	}
	if p.AppProtocol != nil && *p.AppProtocol != "" {
		return NamedProtocol(strings.TrimPrefix(strings.ToLower(*p.AppProtocol), "kubernetes.io/"))
	}
	return NamedProtocol(p.Name)
}

// NamedProtocol reads NAME or NAME-SUFFIX.
func NamedProtocol(name string) Protocol {
	name = strings.ToLower(name)
	for _, known := range []string{
		"http", "http2", "grpc", "grpc-web", "https", "tls", "tcp", "udp", "mongo", "mysql", "redis", "http_proxy", "hbone", "double-hbone", "h2c", "ws", "wss",
	} {
		if name == known || strings.HasPrefix(name, known+"-") {
			return Protocol(known)
		}
	}
	return ""
}
