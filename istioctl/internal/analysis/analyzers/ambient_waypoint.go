package analyzers

import (
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
)

const (
	labelWaypointFor  = "istio.io/waypoint-for"
	fieldUseWaypoint  = "metadata.labels." + analysis.LabelUseWaypoint
	annotationAccount = "gateway.istio.io/service-account"
)

func waypoints(s *analysis.Snapshot) (out analysis.Messages) {
	for r, ns := range analysis.All[*corev1.Namespace](s) {
		if name := ns.Labels[analysis.LabelUseWaypoint]; name == "" || name == "none" {
			continue
		}
		// What a namespace asks for is for its services, and for its workloads where a waypoint is for those.
		traffic := "service"
		b := s.Bind(nil, ns.Name, traffic)
		if w := s.Waypoint(b.Waypoint); w != nil && w.For == "workload" {
			traffic = "workload"
			b = s.Bind(nil, ns.Name, traffic)
		}
		bound(s, &out, r, ns.Name, traffic, b)
		if ns.Labels[analysis.LabelDataplaneMode] != "ambient" && !slices.ContainsFunc(s.Workloads(ns.Name), s.InAmbient) {
			out.Add(analysis.WaypointWithoutAmbient, r, fieldUseWaypoint, b.Waypoint)
		}
	}
	asks := func(labels map[string]string) bool {
		name := labels[analysis.LabelUseWaypoint]
		return name != "" && name != "none"
	}
	own := func(r *analysis.Resource, labels map[string]string, traffic string) {
		if asks(labels) {
			bound(s, &out, r, r.Namespace, traffic, s.Bind(labels, r.Namespace, traffic))
		}
	}
	for r, o := range analysis.All[*corev1.Service](s) {
		own(r, o.Labels, "service")
	}
	for r, o := range analysis.All[*networkingv1.ServiceEntry](s) {
		if asks(o.Labels) && s.Visibility(o) != ambient.VisibleToNone {
			bound(s, &out, r, r.Namespace, "service", s.BindEntry(o))
		}
	}
	for r, o := range analysis.All[*networkingv1.WorkloadEntry](s) {
		own(r, o.Labels, "workload")
	}
	for _, w := range s.Workloads("") {
		if w.Spec != nil {
			own(w.Resource, w.Labels, "workload")
		}
	}
	return out
}

// bound reports what is wrong with the waypoint that an object asks for.
func bound(s *analysis.Snapshot, out *analysis.Messages, r *analysis.Resource, namespace, traffic string, b ambient.Binding) {
	w := s.Waypoint(b.Waypoint)
	switch {
	case b.Waypoint == "":
	case b.Reason == ambient.ReasonCrossNamespace:
		out.Add(analysis.IneffectivePolicy, r, fieldUseWaypoint, "waypoint "+b.Waypoint+" is of another namespace, and meshConfig.serviceEntryVisibility lets only namespace "+
			namespace+" know this ServiceEntry; use a waypoint of that namespace, or have a policy make its entries PUBLIC")
	case w == nil:
		if s.Known("Gateway") {
			out.Add(analysis.ReferencedResourceNotFound, r, fieldUseWaypoint, "waypoint", b.Waypoint)
		}
	case b.Reason == ambient.ReasonAttachmentDenied:
		// Of a namespace whose labels are not known it cannot be said.
		if w.From != gatewayv1.NamespacesFromSelector || knownNamespace(s, namespace) {
			out.Add(analysis.WaypointAttachmentDenied, r, fieldUseWaypoint, b.Waypoint, namespace)
		}
	case b.Reason == ambient.ReasonUnsupportedTraffic:
		out.Add(analysis.WaypointWrongTraffic, r, fieldUseWaypoint, b.Waypoint, traffic, labelWaypointFor, w.For, labelWaypointFor, traffic)
	default:
		if why := notReady(s, w); why != "" {
			consequence := "What is addressed to it goes without policies and routes of layer 7 until it is"
			if b.Reason == ambient.ReasonWaypointAccepted {
				consequence = "Connections are refused until it is"
			}
			out.Add(analysis.WaypointNotReady, r, fieldUseWaypoint, b.Waypoint, why, consequence, w.Name, w.Namespace)
		}
	}
}

// notReady says why a waypoint cannot serve; empty when it can, or when that cannot be known.
func notReady(s *analysis.Snapshot, w *ambient.Waypoint) string {
	gw, r, ok := analysis.Find[*gatewayv1.Gateway](s, w.Namespace, w.Name)
	if !ok || !r.Live() {
		return ""
	}
	for _, kind := range []string{"Accepted", "Programmed"} {
		i := slices.IndexFunc(gw.Status.Conditions, func(c metav1.Condition) bool { return c.Type == kind })
		if i < 0 {
			return "no control plane has taken care of its Gateway"
		}
		if c := gw.Status.Conditions[i]; c.Status != metav1.ConditionTrue {
			return strings.TrimSuffix(strings.TrimSpace(kind+" is "+string(c.Status)+" ("+c.Reason+") "+c.Message), ".")
		}
	}
	if w.Address == nil {
		return "its Gateway has no address"
	}
	if !s.Known("Pod") {
		return ""
	}
	ready := slices.ContainsFunc(s.Select(w.Namespace, map[string]string{analysis.LabelGatewayName: w.Name}), func(p *analysis.Workload) bool { return p.Pod != nil && podReady(p.Pod) })
	if !ready {
		return "none of its pods is ready"
	}
	return ""
}

func podReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
