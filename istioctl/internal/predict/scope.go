package predict

import (
	"strings"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/why"
	"github.com/isthmus-mesh/isthmus/pilot/simulate"
	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
)

// scope is what a change may have an effect on: where no proxy is sent anything else, no request fares otherwise.
type scope struct {
	all        bool
	namespaces map[string]bool
	services   map[string]bool // by namespace/hostname
	waypoints  map[string]bool
	gateways   map[string]bool
}

// scopeOf finds the services whose clients may notice the differences.
func scopeOf(differences []Proxy, before, after *why.Model, policies []string) *scope {
	s := &scope{namespaces: map[string]bool{}, services: map[string]bool{}, waypoints: map[string]bool{}, gateways: map[string]bool{}}
	root := after.Mesh.Settings().RootNamespace
	backing := map[string][]string{} // services of workloads that differ
	for _, m := range []*why.Model{before, after} {
		for _, w := range m.Mesh.Workloads() {
			for key := range w.Proto.Services {
				backing[w.Proto.Uid] = append(backing[w.Proto.Uid], key)
			}
		}
	}
	for _, p := range differences {
		switch p.proxy.Kind {
		case simulate.Waypoint:
			s.waypoints[p.proxy.Namespace+"/"+p.proxy.Gateway] = true
		case simulate.Router:
			s.gateways[p.proxy.Namespace+"/"+p.proxy.Gateway] = true
		default:
			for _, r := range p.Resources {
				ns, _, _ := strings.Cut(r.Name, "/")
				switch {
				case r.Type == "Authorization" && ns == root:
					s.all = true
				case r.Type == "Authorization":
					s.namespaces[ns] = true
				default:
					s.services[r.Name] = true
					for _, key := range backing[r.Name] {
						s.services[key] = true
					}
				}
			}
		}
	}
	for _, ns := range policies {
		s.namespaces[ns] = true
	}
	return s
}

func (s *scope) has(service *ambient.Service) bool {
	return s.all || s.namespaces[service.Proto.Namespace] || s.services[service.Key()] || s.waypoints[service.Binding.Waypoint]
}

// gateway is whether requests by way of a gateway may fare otherwise: also when it is somebody behind it that is sent something else.
func (s *scope) gateway(key string) bool {
	return s.all || s.gateways[key] || len(s.services)+len(s.namespaces)+len(s.waypoints) > 0
}
