package policy

import (
	"net"
	"strconv"

	meshapi "istio.io/api/mesh/v1alpha1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
)

// Collector is a service that proxies send to of themselves.
type Collector struct {
	Service string
	Port    uint32
}

// Collectors are the services of those providers that the mesh configuration or an object names.
func Collectors(mesh *meshapi.MeshConfig, objects []*telemetryv1.Telemetry) (out []Collector) {
	t := &telemetry{mesh: mesh}
	names := appendMissing(nil, t.defaultLogs()...)
	names = appendMissing(names, t.defaultTracer())
	for _, o := range objects {
		for _, l := range o.Spec.GetAccessLogging() {
			names = appendMissing(names, providerNames(l.GetProviders())...)
		}
		for _, l := range o.Spec.GetTracing() {
			names = appendMissing(names, providerNames(l.GetProviders())...)
		}
	}
	for _, name := range names {
		p := t.provider(name)
		switch {
		case p.GetOpentelemetry() != nil:
			out = append(out, Collector{p.GetOpentelemetry().GetService(), p.GetOpentelemetry().GetPort()})
		case p.GetZipkin() != nil:
			out = append(out, Collector{p.GetZipkin().GetService(), p.GetZipkin().GetPort()})
		case p.GetEnvoyOtelAls() != nil:
			out = append(out, Collector{p.GetEnvoyOtelAls().GetService(), p.GetEnvoyOtelAls().GetPort()})
		case p == nil && name == legacyProvider:
			host, port, err := net.SplitHostPort(mesh.GetDefaultConfig().GetTracing().GetZipkin().GetAddress())
			if number, bad := strconv.ParseUint(port, 10, 16); err == nil && bad == nil {
				out = append(out, Collector{host, uint32(number)})
			}
		}
	}
	return out
}
