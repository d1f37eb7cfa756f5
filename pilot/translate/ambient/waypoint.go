package ambient

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

const waypointClass = "istio-waypoint"

// Waypoint is a Gateway that serves as one.
type Waypoint struct {
	Namespace, Name string
	// Address is nil until the Gateway's status has one: until then the waypoint is not ready and nothing is sent to it.
	Address *workload.GatewayAddress
	// For is what it serves: service, workload, all or none.
	For string
	// From says which other namespaces may use it.
	From     gatewayv1.FromNamespaces
	Selector *metav1.LabelSelector
	// Tunnel is how its pods take connections, if not by HBONE.
	Tunnel *workload.ApplicationTunnel
	// ServiceAccount of its pods.
	ServiceAccount string
}

// Waypoints is how a translator finds them.
type Waypoints struct {
	// Get returns nil for what is no waypoint.
	Get func(key string) *Waypoint
	// Served is whether a pod of the waypoint is ready. It is asked only where that decides.
	Served func(w *Waypoint) bool
}

// Key is namespace/name.
func (w *Waypoint) Key() string { return w.Namespace + "/" + w.Name }

// NewWaypoint returns nil for a Gateway that is none. class may be nil.
func NewWaypoint(mesh Mesh, gw *gatewayv1.Gateway, class *gatewayv1.GatewayClass) *Waypoint {
	listener := slices.IndexFunc(gw.Spec.Listeners, func(l gatewayv1.Listener) bool { return l.Protocol == "HBONE" })
	if gw.Spec.GatewayClassName != waypointClass && (listener < 0 || gw.Spec.GatewayClassName == "istio-east-west") {
		return nil
	}
	w := &Waypoint{
		Namespace: gw.Namespace, Name: gw.Name, For: "service", From: gatewayv1.NamespacesFromSame,
		ServiceAccount: cmp.Or(gw.Annotations[annotationServiceAccount], gw.Name),
	}
	if class != nil && class.Labels[labelWaypointFor] != "" {
		w.For = class.Labels[labelWaypointFor]
	}
	if gw.Labels[labelWaypointFor] != "" {
		w.For = gw.Labels[labelWaypointFor]
	}
	if listener >= 0 {
		if allowed := gw.Spec.Listeners[listener].AllowedRoutes; allowed != nil && allowed.Namespaces != nil && allowed.Namespaces.From != nil {
			w.From, w.Selector = *allowed.Namespaces.From, allowed.Namespaces.Selector
		}
	}
	binding := gw.Annotations[annotationInboundBinding]
	if binding == "" && class != nil {
		binding = class.Annotations[annotationInboundBinding]
	}
	w.Tunnel = inboundBinding(binding)
	w.Address = gatewayAddress(mesh, gw)
	return w
}

// gatewayAddress is the first hostname of the status, which stays what it is when addresses change, else the first address; nil while
// there is none.
func gatewayAddress(mesh Mesh, gw *gatewayv1.Gateway) *workload.GatewayAddress {
	var first *workload.GatewayAddress
	for _, a := range gw.Status.Addresses {
		address := waypointAddress(mesh, gw, a)
		if address.GetHostname() != nil {
			return address
		}
		if first == nil {
			first = address
		}
	}
	return first
}

func waypointAddress(mesh Mesh, gw *gatewayv1.Gateway, a gatewayv1.GatewayStatusAddress) *workload.GatewayAddress {
	out := &workload.GatewayAddress{HboneMtlsPort: hbonePort}
	if a.Type != nil && *a.Type == gatewayv1.HostnameAddressType {
		out.Destination = &workload.GatewayAddress_Hostname{Hostname: &workload.NamespacedHostname{Namespace: gw.Namespace, Hostname: a.Value}}
		return out
	}
	ip, err := netip.ParseAddr(a.Value)
	if err != nil {
		return nil
	}
	out.Destination = &workload.GatewayAddress_Address{Address: &workload.NetworkAddress{Network: mesh.networkOf(gw.Labels, ip), Address: ip.Unmap().AsSlice()}}
	return out
}

// inboundBinding reads PROTOCOL or PROTOCOL/port.
func inboundBinding(text string) *workload.ApplicationTunnel {
	protocol, portText, _ := strings.Cut(text, "/")
	if protocol != "PROXY" {
		return nil
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil && portText != "" {
		return nil
	}
	return &workload.ApplicationTunnel{Protocol: workload.ApplicationTunnel_PROXY, Port: uint32(port)}
}

// allows reports whether objects of the namespace may use the waypoint.
func (w *Waypoint) allows(namespace string, ns *corev1.Namespace) bool {
	switch w.From {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSelector:
		// The waypoint's own namespace has to be selected like others.
		selector, err := metav1.LabelSelectorAsSelector(w.Selector)
		return err == nil && ns != nil && selector.Matches(labels.Set(ns.Labels))
	}
	return namespace == w.Namespace
}

// Reasons why an object is bound to a waypoint or not; they are those of the condition istio.io/WaypointBound.
const (
	ReasonWaypointAccepted   = "WaypointAccepted"
	ReasonWaypointIsNotReady = "WaypointIsNotReady"
	ReasonWaypointMissing    = "WaypointMissing"
	ReasonAttachmentDenied   = "AttachmentDenied"
	ReasonUnsupportedTraffic = "UnsupportedTrafficType"
	ReasonCrossNamespace     = "CrossNamespaceWaypointForbidden"
	trafficService           = "service"
	trafficWorkload          = "workload"
	trafficAll               = "all"
)

// Binding is the waypoint that an object's labels ask for, and what came of it.
type Binding struct {
	// Waypoint is namespace/name, empty when none is asked for.
	Waypoint string
	Reason   string
	// Ref is set when the waypoint is to be used, and when nothing may pass without it.
	Ref *workload.GatewayAddress
	// Guard is the identity, as policies write it, of the only ones who may connect to what is bound; empty without such a limit.
	Guard ServiceAccount
}

// ServiceAccount is who a waypoint is.
type ServiceAccount struct{ Namespace, Name string }

// Modes of the label istio.io/waypoint-failure-mode, on an object or its namespace. Without one, what is bound to a waypoint that has
// never been ready is reached without it, and one that has no pods any more is waited for.
const (
	failClosed = "Closed"    // nothing passes but through the waypoint, be it missing, and to the pods' own addresses neither
	failOpen   = "Open"      // without a ready pod of the waypoint, connections pass it by
	failDirect = "Direct-L4" // the same, by the name that says what still holds: the policies of L4
)

// Bind resolves the labels of an object, or else those of its namespace. get returns nil for what is no waypoint.
func Bind(objectLabels map[string]string, namespace string, ns *corev1.Namespace, traffic string, waypoints Waypoints) Binding {
	return bind(objectLabels, namespace, ns, traffic, waypoints, false)
}

// bind is Bind; with ownOnly, waypoints of other namespaces are refused, be they there or not.
func bind(objectLabels map[string]string, namespace string, ns *corev1.Namespace, traffic string, waypoints Waypoints, ownOnly bool) Binding {
	if objectLabels[labelManaged] == managedWaypoint {
		return Binding{}
	}
	from := objectLabels
	if from[labelUseWaypoint] == "" && ns != nil {
		from = ns.Labels
	}
	name := from[labelUseWaypoint]
	if name == "" || name == none {
		return Binding{}
	}
	in := cmp.Or(from[labelUseWaypointNamespace], namespace)
	key := in + "/" + name
	if own := objectLabels[labelGatewayName]; own != "" && key == namespace+"/"+own {
		return Binding{}
	}
	w := waypoints.Get(key)
	b := Binding{Waypoint: key}
	switch {
	case ownOnly && in != namespace:
		b.Reason = ReasonCrossNamespace
	case w == nil:
		b.Reason = ReasonWaypointMissing
	case !w.allows(namespace, ns):
		b.Reason = ReasonAttachmentDenied
	case w.For != traffic && w.For != trafficAll:
		b.Reason = ReasonUnsupportedTraffic
	case w.Address == nil:
		b.Reason = ReasonWaypointIsNotReady
	default:
		b.Reason, b.Ref = ReasonWaypointAccepted, w.Address
	}
	b.failAs(failureMode(objectLabels, ns), w, waypoints)
	return b
}

func failureMode(objectLabels map[string]string, ns *corev1.Namespace) string {
	if mode := objectLabels[labelFailureMode]; mode != "" || ns == nil {
		return mode
	}
	return ns.Labels[labelFailureMode]
}

// failAs applies a failure mode. w may be nil. A mode that is not known is the strictest.
func (b *Binding) failAs(mode string, w *Waypoint, waypoints Waypoints) {
	switch mode {
	case "":
	case failOpen, failDirect:
		if b.Ref != nil && waypoints.Served != nil && !waypoints.Served(w) {
			b.Reason, b.Ref = ReasonWaypointIsNotReady, nil
		}
	default:
		namespace, name, _ := strings.Cut(b.Waypoint, "/")
		b.Guard = ServiceAccount{namespace, name}
		if w != nil {
			b.Guard.Name = w.ServiceAccount
		}
		if b.Ref == nil {
			// A name that nothing has: who looks for it refuses, and says so.
			b.Ref = &workload.GatewayAddress{HboneMtlsPort: hbonePort, Destination: &workload.GatewayAddress_Hostname{
				Hostname: &workload.NamespacedHostname{Namespace: namespace, Hostname: name + ".waypoint-unavailable.invalid"},
			}}
		}
	}
}

// GuardPolicy keeps everybody but the waypoint away from the workloads of a service that is only for it; nil for other services, and
// for those that select no workloads. No object can have the policy's name.
func GuardPolicy(mesh Mesh, s *Service) *Policy {
	if s.Binding.Guard == (ServiceAccount{}) || len(s.Selector) == 0 {
		return nil
	}
	p := &Policy{Namespace: s.Proto.Namespace, Name: "istio_waypoint_only_" + s.Proto.Hostname, Selector: s.Selector, Status: PolicyStatus{Accepted: true, Reason: ReasonAccepted}}
	match := &security.Match{}
	for _, domain := range append([]string{mesh.TrustDomain}, mesh.TrustDomainAliases...) {
		match.NotPrincipals = append(match.NotPrincipals, &security.StringMatch{MatchType: &security.StringMatch_Exact{
			Exact: domain + "/ns/" + s.Binding.Guard.Namespace + "/sa/" + s.Binding.Guard.Name,
		}})
	}
	p.Proto = &security.Authorization{
		Name: p.Name, Namespace: p.Namespace, Scope: security.Scope_WORKLOAD_SELECTOR, Action: security.Action_DENY,
		Rules: []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{match}}}}},
	}
	return p
}
