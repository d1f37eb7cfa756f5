package registry

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	meshapi "istio.io/api/mesh/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// Status is what became of one object, as its status field has it.
type Status struct {
	schema.GroupVersionKind
	Namespace, Name string
	// Content is the status as JSON, without times.
	Content json.RawMessage
}

// Key is group/kind/namespace/name.
func (s Status) Key() string { return s.Group + "/" + s.Kind + "/" + s.Namespace + "/" + s.Name }

func sameStatus(a, b Status) bool { return string(a.Content) == string(b.Content) }

// ConditionDeployed is False on a Gateway that cannot be deployed as it asks to be, and absent otherwise. Whoever deploys Gateways
// writes it, perhaps in another replica, and the Gateway's Accepted follows from it.
const ConditionDeployed = "istio.io/Deployed"

// Conditions of objects that a waypoint can be asked for by labels.
const (
	conditionWaypointBound   = "istio.io/WaypointBound"
	conditionVisibility      = "istio.io/VisibilityApplied"
	conditionZtunnelAccepted = "ZtunnelAccepted"
	reasonUnsupported        = "Unsupported"
)

// conditionsStatus is the status of what has nothing but conditions.
type conditionsStatus struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	Conditions         []metav1.Condition `json:"conditions"`
}

func newStatus(group, version, kind string, o kube.Object, content any) (Status, bool) {
	raw, err := json.Marshal(content)
	if err != nil {
		return Status{}, false // conditions are strings and numbers
	}
	return Status{schema.GroupVersionKind{Group: group, Version: version, Kind: kind}, o.GetNamespace(), o.GetName(), raw}, true
}

// fromConditions makes the status of an object; none without conditions.
func fromConditions(group, version, kind string, o kube.Object, conditions []metav1.Condition) (Status, bool) {
	if len(conditions) == 0 {
		return Status{}, false
	}
	return newStatus(group, version, kind, o, conditionsStatus{o.GetGeneration(), conditions})
}

func newCondition(o kube.Object, kind string, ok bool, reason, message string) metav1.Condition {
	status := metav1.ConditionFalse
	if ok {
		status = metav1.ConditionTrue
	}
	return metav1.Condition{Type: kind, Status: status, ObservedGeneration: o.GetGeneration(), Reason: reason, Message: message}
}

func boundCondition(o kube.Object, b ambient.Binding) []metav1.Condition {
	if b.Waypoint == "" {
		return nil
	}
	message := map[string]string{
		ambient.ReasonWaypointAccepted:   "Successfully attached to waypoint " + b.Waypoint,
		ambient.ReasonWaypointIsNotReady: "waypoint " + b.Waypoint + " has no address yet",
		ambient.ReasonWaypointMissing:    "there is no waypoint " + b.Waypoint,
		ambient.ReasonAttachmentDenied:   "we are not permitted to attach to waypoint " + b.Waypoint,
		ambient.ReasonUnsupportedTraffic: "waypoint " + b.Waypoint + " is not for this traffic: see its label istio.io/waypoint-for",
		ambient.ReasonCrossNamespace: "waypoint " + b.Waypoint + " is of another namespace, and only its own may know the ServiceEntry (meshConfig.serviceEntryVisibility): " +
			"use a waypoint of this namespace, or have a policy make this namespace's entries PUBLIC",
	}[b.Reason]
	return []metav1.Condition{newCondition(o, conditionWaypointBound, b.Reason == ambient.ReasonWaypointAccepted, b.Reason, message)}
}

// visibilityCondition is there when the mesh speaks of visibility.
func visibilityCondition(o kube.Object, v *ambient.EntryVisibility, applied ambient.Visibility) []metav1.Condition {
	if !v.Configured() {
		return nil
	}
	message := map[ambient.Visibility]string{
		ambient.VisibleToAll:       "every namespace may know it",
		ambient.VisibleToNamespace: "only clients of namespace " + o.GetNamespace() + " may know it; for all others it is not there",
		ambient.VisibleToNone:      "nobody may know it: no proxy is told of it",
	}[applied]
	return []metav1.Condition{newCondition(o, conditionVisibility, true, applied.String(), message+" (meshConfig.serviceEntryVisibility)")}
}

// deriveStatuses computes what became of each object.
func (r *Registry) deriveStatuses() {
	r.statuses = coll.Join("statuses", append(r.ambientStatuses(), r.routingStatuses()...)...)
}

func statusOf[T kube.Object](name string, in coll.Collection[T], fn func(coll.Fetch, T) (Status, bool)) coll.Collection[Status] {
	return coll.Map("status/"+name, in, Status.Key, fn, coll.WithEqual(sameStatus))
}

func (r *Registry) ambientStatuses() []coll.Collection[Status] {
	services := statusOf("services", r.services, func(f coll.Fetch, o *corev1.Service) (Status, bool) {
		s, ok := coll.FetchOne(f, r.serviceList, o.Namespace+"/"+r.meshFor(f).Hostname(o.Namespace, o.Name))
		if !ok || s.Entry != "" {
			return Status{}, false
		}
		return fromConditions("", "v1", "Service", o, boundCondition(o, s.Binding))
	})
	entries := statusOf("entries", r.entries, func(f coll.Fetch, o *networkingv1.ServiceEntry) (Status, bool) {
		ns, ours := r.namespace(f, o.Namespace)
		if !ours {
			return Status{}, false
		}
		mesh := r.meshFor(f)
		applied := mesh.Visibility.Of(o.Namespace, ns)
		var out []metav1.Condition
		if applied != ambient.VisibleToNone {
			out = boundCondition(o, ambient.EntryBinding(mesh, o, ns, r.waypointsFor(f)))
		}
		return fromConditions(groupNetworking, "v1", "ServiceEntry", o, append(out, visibilityCondition(o, mesh.Visibility, applied)...))
	})
	workloads := statusOf("workloads", r.endpoints, func(f coll.Fetch, o *networkingv1.WorkloadEntry) (Status, bool) {
		w, ok := coll.FetchOne(f, r.workloads, r.meshFor(f).ClusterID+"/networking.istio.io/WorkloadEntry/"+objectKey(o))
		if !ok {
			return Status{}, false
		}
		return fromConditions(groupNetworking, "v1", "WorkloadEntry", o, boundCondition(o, w.bound()))
	})
	policies := statusOf("policies", r.policies, func(f coll.Fetch, o *securityv1.AuthorizationPolicy) (Status, bool) {
		out := policyConditions(o, policy.AuthorizationPolicyConditions(policy.Input{Mesh: r.meshConfig(f), Authorizer: r.providers(f, client{namespace: o.Namespace})}, o, finder{r, f}))
		if p, ok := coll.FetchOne(f, r.policyList, objectKey(o)); ok && len(out) == 0 {
			out = append(out, newCondition(o, conditionZtunnelAccepted, p.Status.Accepted, p.Status.Reason, p.Status.Message))
		}
		return fromConditions(groupSecurity, "v1", "AuthorizationPolicy", o, out)
	})
	tokens := statusOf("tokens", r.routing.requestAuths, func(f coll.Fetch, o *securityv1.RequestAuthentication) (Status, bool) {
		found := policy.RequestAuthenticationConditions(r.meshConfig(f), o, r.keySet(f), finder{r, f})
		return fromConditions(groupSecurity, "v1", "RequestAuthentication", o, policyConditions(o, found))
	})
	return []coll.Collection[Status]{services, entries, workloads, policies, tokens}
}

// meshConfig has a root namespace, whatever was written.
func (r *Registry) meshConfig(f coll.Fetch) *meshapi.MeshConfig {
	m := r.envoyMesh(f)
	if m.Config != nil && m.Config.GetRootNamespace() != "" {
		return m.Config
	}
	return &meshapi.MeshConfig{TrustDomain: m.TrustDomain, TrustDomainAliases: m.TrustDomainAliases, RootNamespace: m.RootNamespace}
}

func policyConditions(o kube.Object, found []policy.Condition) (out []metav1.Condition) {
	for _, c := range found {
		out = append(out, newCondition(o, c.Type, c.True, c.Reason, c.Message))
	}
	return out
}

// finder implements policy.Finder.
type finder struct {
	r *Registry
	f coll.Fetch
}

// Find implements policy.Finder.
func (l finder) Find(kind, namespace, name string) (exists bool, proxy string) {
	bound := func(s *ambient.Service) string {
		if keys := boundTo(s.Binding); len(keys) > 0 {
			return keys[0]
		}
		return ""
	}
	switch kind {
	case policy.KindService:
		if s, ok := coll.FetchOne(l.f, l.r.serviceList, namespace+"/"+l.r.meshFor(l.f).Hostname(namespace, name)); ok && s.Entry == "" {
			return true, bound(s)
		}
	case policy.KindServiceEntry:
		for _, s := range coll.FetchIndex(l.f, l.r.byEntry, namespace+"/"+name) {
			return true, bound(s)
		}
		_, exists := coll.FetchOne(l.f, l.r.entries, namespace+"/"+name) // nobody may know it, or nothing can be said of its hosts
		return exists, ""
	case policy.KindGateway:
		if _, ok := coll.FetchOne(l.f, l.r.gateways, namespace+"/"+name); ok {
			return true, namespace + "/" + name
		}
	}
	return false, ""
}

func (r *Registry) routingStatuses() []coll.Collection[Status] {
	x := &r.routing
	virtualServices := statusOf("virtualServices", x.virtualServices, func(f coll.Fetch, o *networkingv1.VirtualService) (Status, bool) {
		return fromConditions(groupNetworking, "v1", "VirtualService", o, gateway.VirtualServiceStatus(r.view(f), r.routeMesh(f), o, nil))
	})
	classic := statusOf("classicGateways", x.classic, func(f coll.Fetch, o *networkingv1.Gateway) (Status, bool) {
		return fromConditions(groupNetworking, "v1", "Gateway", o, gateway.ClassicGatewayStatus(r.view(f), o, nil))
	})
	http := statusOf("httpRoutes", x.httpRoutes, func(f coll.Fetch, o *gatewayv1.HTTPRoute) (Status, bool) {
		return newStatus(groupGateway, "v1", "HTTPRoute", o, gateway.HTTPRouteStatus(r.view(f), r.routeMesh(f), o))
	})
	grpc := statusOf("grpcRoutes", x.grpcRoutes, func(f coll.Fetch, o *gatewayv1.GRPCRoute) (Status, bool) {
		return newStatus(groupGateway, "v1", "GRPCRoute", o, gateway.GRPCRouteStatus(r.view(f), r.routeMesh(f), o))
	})
	tls := statusOf("tlsRoutes", x.tlsRoutes, func(f coll.Fetch, o *gatewayv1.TLSRoute) (Status, bool) {
		return newStatus(groupGateway, "v1", "TLSRoute", o, gateway.TLSRouteStatus(r.view(f), r.routeMesh(f), o))
	})
	tcp := statusOf("tcpRoutes", x.tcpRoutes, func(f coll.Fetch, o *gatewayv1.TCPRoute) (Status, bool) {
		return newStatus(groupGateway, "v1", "TCPRoute", o, gateway.TCPRouteStatus(r.view(f), r.routeMesh(f), o))
	})
	gateways := statusOf("gateways", r.gateways, func(f coll.Fetch, o *gatewayv1.Gateway) (Status, bool) {
		s := gateway.GatewayStatus(r.view(f), o, r.gatewayState(f, o), r.routesOf(f, "Gateway", o))
		if s == nil {
			return Status{}, false
		}
		return newStatus(groupGateway, "v1", "Gateway", o, s)
	})
	sets := statusOf("listenerSets", x.listenerSets, func(f coll.Fetch, o *gatewayv1.ListenerSet) (Status, bool) {
		return r.listenerSetStatus(f, o)
	})
	classes := statusOf("classes", r.classes, func(_ coll.Fetch, o *gatewayv1.GatewayClass) (Status, bool) {
		s := gateway.GatewayClassStatus(o)
		if s == nil {
			return Status{}, false
		}
		return newStatus(groupGateway, "v1", "GatewayClass", o, s)
	})
	rules := statusOf("rules", x.rules, func(_ coll.Fetch, o *networkingv1.DestinationRule) (Status, bool) {
		return fromConditions(groupNetworking, "v1", "DestinationRule", o, ruleConditions(o))
	})
	out := []coll.Collection[Status]{
		virtualServices, classic, http, grpc, tls, tcp, gateways, sets, classes, rules, r.backendTLSStatuses(), r.telemetryStatuses(), r.rateLimitStatuses(),
	}
	for _, u := range x.unsupported {
		out = append(out, u.statuses())
	}
	return out
}

// gatewayState is what is known of a Gateway's pods: those that carry its name and are ready.
func (r *Registry) gatewayState(f coll.Fetch, o *gatewayv1.Gateway) gateway.GatewayState {
	s := gateway.GatewayState{Addresses: o.Status.Addresses, Reason: "no pod of the Gateway is ready"}
	for _, w := range coll.FetchIndex(f, r.routing.workloadsByGateway, objectKey(o)) {
		if !w.unhealthy {
			s.Ready, s.Reason = true, ""
		}
	}
	if c := meta.FindStatusCondition(o.Status.Conditions, ConditionDeployed); c != nil && c.Status == metav1.ConditionFalse {
		s.Problem = c.Message
	}
	return s
}

// Statuses are those of all objects, by key.
func (r *Registry) Statuses() []Status { return r.statuses.List() }

// FollowStatuses calls changed with all statuses now and with every change from now on, until stop is called. A status without
// content is of an object that is gone or has none. changed must be quick, and must not call back.
func (r *Registry) FollowStatuses(changed func([]Status)) (stop func()) {
	return r.statuses.Register(func(events []coll.Event[Status]) {
		out := make([]Status, 0, len(events))
		for _, e := range events {
			if e.New != nil {
				out = append(out, *e.New)
				continue
			}
			gone := *e.Old
			gone.Content = nil
			out = append(out, gone)
		}
		changed(out)
	})
}

// Problems are those that translations for connected proxies met, by object.
func (r *Registry) Problems() map[string][]string {
	all := map[string]map[string]bool{}
	note := func(list []route.Problem) {
		for _, p := range list {
			key := cmp.Or(p.Origin.Kind, "?") + " " + p.Origin.Namespace + "/" + p.Origin.Name
			if all[key] == nil {
				all[key] = map[string]bool{}
			}
			all[key][fmt.Sprintf("%s: %s", p.Field, p.Message)] = true
		}
	}
	for _, o := range r.proxies.routes.List() {
		note(o.problems)
	}
	for _, o := range r.proxies.connections.List() {
		note(o.problems)
	}
	for _, o := range r.proxies.gateways.List() {
		note(o.problems)
	}
	for _, o := range r.credentials.served.List() {
		note(o.problems)
	}
	out := map[string][]string{}
	for key, problems := range all {
		out[key] = slices.Sorted(maps.Keys(problems))
	}
	return out
}
