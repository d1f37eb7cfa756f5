package analysis

import (
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

func (s *Snapshot) indexWaypoints() {
	s.waypoints = map[string]*ambient.Waypoint{}
	for r, gw := range All[*gatewayv1.Gateway](s) {
		class, _, _ := Find[*gatewayv1.GatewayClass](s, "", string(gw.Spec.GatewayClassName))
		w := ambient.NewWaypoint(s.Ambient, gw, class)
		if w == nil {
			continue
		}
		if w.Address == nil && !r.Live() {
			// What is only in a file has no status yet; it will have.
			w.Address = &workload.GatewayAddress{}
		}
		s.waypoints[w.Key()] = w
	}
	s.bound = map[string][]*Host{}
	for _, list := range s.hosts {
		for _, h := range list {
			if len(h.Selector) > 0 && s.Binding(h).Waypoint != "" {
				s.bound[h.Namespace] = append(s.bound[h.Namespace], h)
			}
		}
	}
}

// Waypoint returns a waypoint by namespace/name; nil when there is none.
func (s *Snapshot) Waypoint(key string) *ambient.Waypoint { return s.waypoints[key] }

// Bind returns what became of the waypoint that labels in a namespace ask for. traffic is service or workload.
func (s *Snapshot) Bind(labels map[string]string, namespace, traffic string) ambient.Binding {
	ns, _, _ := Find[*corev1.Namespace](s, "", namespace)
	return ambient.Bind(labels, namespace, ns, traffic, ambient.Waypoints{Get: s.Waypoint})
}

// BindEntry is Bind for a ServiceEntry, which its visibility may keep from the waypoints of other namespaces.
func (s *Snapshot) BindEntry(se *networkingv1.ServiceEntry) ambient.Binding {
	ns, _, _ := Find[*corev1.Namespace](s, "", se.Namespace)
	return ambient.EntryBinding(s.Ambient, se, ns, ambient.Waypoints{Get: s.Waypoint})
}

// Through returns the waypoints in use through which a workload is called: its services', and its own.
func (s *Snapshot) Through(w *Workload) []*ambient.Waypoint {
	var out []*ambient.Waypoint
	add := func(b ambient.Binding) {
		if found := s.waypoints[b.Waypoint]; found != nil && b.Reason == ambient.ReasonWaypointAccepted && !slices.Contains(out, found) {
			out = append(out, found)
		}
	}
	for _, h := range s.bound[w.Namespace] {
		if Matches(h.Selector, w.Labels) {
			add(s.Binding(h))
		}
	}
	add(s.Bind(w.Labels, w.Namespace, "workload"))
	return out
}
