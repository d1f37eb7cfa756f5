package registry

import (
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/pilot/translate/envoy"
	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// providers finds the services of extension providers, [NAMESPACE/]HOST, as a client sees them. HOST may be NAME.NAMESPACE,
// as clients in the cluster may write it. With NAMESPACE the service has to be of that namespace, whoever else has the same host.
func (r *Registry) providers(f coll.Fetch, by client) policy.FindService {
	return func(service string, port uint32) (policy.Backend, error) {
		wanted, host, qualified := strings.Cut(service, "/")
		if !qualified {
			wanted, host = "", service
		}
		names := []string{host}
		if parts := strings.Split(host, "."); len(parts) == 2 || len(parts) == 3 && parts[2] == "svc" {
			names = append(names, r.meshFor(f).Hostname(parts[1], parts[0]))
		}
		for _, name := range names {
			s := r.service(f, name, by)
			if s == nil || qualified && s.Proto.Namespace != wanted {
				continue
			}
			at := slices.IndexFunc(s.Proto.Ports, func(p *workload.Port) bool { return p.ServicePort == port })
			if at < 0 {
				return policy.Backend{}, fmt.Errorf("port: the service %q has no port %d", service, port)
			}
			return policy.Backend{
				Cluster: envoy.Outbound(port, "", s.Proto.Hostname), Host: s.Proto.Hostname,
				HTTP2: envoy.ProtocolOf(s.Proto.Ports[at].AppProtocol) == envoy.HTTP2,
			}, nil
		}
		return policy.Backend{}, fmt.Errorf("service: there is no service %q", service)
	}
}

// proxyOf is the client that filter chains of a target are for.
func proxyOf(t policy.Target) client {
	if t.Proxy == policy.Waypoint {
		return client{waypointScope, t.Namespace}
	}
	return client{routerScope, t.Namespace}
}
