package registry

import (
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// entryServices makes the services of a ServiceEntry: those of its hosts that no other service has a better claim to.
func (r *Registry) entryServices(f coll.Fetch, se *networkingv1.ServiceEntry, kubernetes coll.Collection[*ambient.Service], allocate func(entry, host string) []string) []*ambient.Service {
	ns, ours := r.namespace(f, se.Namespace)
	if !ours {
		return nil
	}
	made := ambient.EntryServices(r.meshFor(f), se, ns, r.waypointsFor(f), allocate)
	return slices.DeleteFunc(made, func(s *ambient.Service) bool {
		c := r.claim(f, se, s.Proto.Hostname)
		s.Proto.Canonical = c.everywhere && s.Proto.Visibility == workload.Service_PUBLIC && !r.isKubernetes(f, kubernetes, s.Proto.Hostname)
		return !c.namespace
	})
}

// claim is where a ServiceEntry is the first that claims a host.
type claim struct{ namespace, everywhere bool }

// claim compares a ServiceEntry with the older ones that claim a host. Those that nobody else knows count in their own namespace only.
func (r *Registry) claim(f coll.Fetch, se *networkingv1.ServiceEntry, host string) claim {
	c := claim{namespace: true, everywhere: true}
	mesh, waypoints := r.meshFor(f), r.waypointsFor(f)
	for _, other := range coll.FetchIndex(f, r.entriesByHost, host) {
		if olderFirst(&se.ObjectMeta, &other.ObjectMeta) <= 0 {
			continue
		}
		ns, ours := r.namespace(f, other.Namespace)
		if !ours {
			continue
		}
		serves, everywhere := ambient.EntryServes(mesh, other, ns, waypoints)
		c.namespace = c.namespace && !(serves && other.Namespace == se.Namespace)
		c.everywhere = c.everywhere && !everywhere
	}
	return c
}

// isKubernetes reports whether a host is the name of a Service of Kubernetes, whatever others say of it.
func (r *Registry) isKubernetes(f coll.Fetch, services coll.Collection[*ambient.Service], host string) bool {
	_, rest, _ := strings.Cut(host, ".")
	namespace, ok := strings.CutSuffix(rest, ".svc."+r.meshFor(f).Domain)
	if !ok {
		return false
	}
	_, is := coll.FetchOne(f, services, namespace+"/"+host)
	return is
}
