package gateway

import (
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// Conditions carry no transition time: the writer keeps the one of a condition that did not change.

// Condition types and reasons of the objects of Istio's own API.
const (
	ConditionAccepted      = "Accepted"
	ConditionResolvedRefs  = "ResolvedRefs"
	reasonAccepted         = "Accepted"
	reasonInvalid          = "Invalid"
	reasonPartiallyInvalid = "PartiallyInvalid"
	reasonResolved         = "ResolvedRefs"
	reasonNotFound         = "NotFound"
)

// VirtualServiceStatus is the conditions of a VirtualService. Accepted is False, and names the fields, when a piece of it cannot
// be used; ResolvedRefs when it names something that is not there. Problems are those that translations reported of it; what can
// be seen without a proxy is found here.
func VirtualServiceStatus(v View, mesh Mesh, vs *networkingv1.VirtualService, problems []route.Problem) []metav1.Condition {
	gateways := []string{meshGateway}
	for _, name := range vs.Spec.Gateways {
		gateways = append(gateways, gatewayKey(name, vs.Namespace))
	}
	t := &translation{
		view: v, mesh: mesh, cluster: OutboundCluster, namespace: vs.Namespace,
		waypoint: len(vs.Spec.Gateways) == 0 || slices.Contains(vs.Spec.Gateways, meshGateway),
	}
	origin := virtualServiceOrigin(vs)
	hosts := field.NewPath("spec", "hosts")
	for i, host := range VirtualServiceHosts(mesh, vs) {
		if !validHost(host) {
			t.problem(origin, hosts.Index(i), "%q is no host name", host)
		}
	}
	routes, _ := t.httpRoutes(vs, gateways)
	used := len(routes) + len(t.tcpRoutes(vs, gateways)) + len(t.tlsRoutes(vs, gateways))
	for _, p := range problems {
		t.note(p)
	}
	return conditions(t.problems, origin, vs.Generation, used > 0)
}

// ClassicGatewayStatus is the conditions of a classic Gateway.
func ClassicGatewayStatus(v View, gw *networkingv1.Gateway, problems []route.Problem) []metav1.Condition {
	t := &translation{view: v}
	served := len(t.listeners(GatewayInput{Classic: []*networkingv1.Gateway{gw}}))
	for _, p := range problems {
		t.note(p)
	}
	origin := route.Origin{Group: groupNetworking, Version: "v1", Kind: kindGateway, Namespace: gw.Namespace, Name: gw.Name}
	return conditions(t.problems, origin, gw.Generation, served > 0)[:1]
}

// conditions sums up what was found wrong with one object.
func conditions(problems []route.Problem, origin route.Origin, generation int64, usable bool) []metav1.Condition {
	var wrong, missing []string
	for _, p := range problems {
		switch text := p.Field + ": " + p.Message; {
		case p.Origin != origin:
		case p.Missing:
			missing = append(missing, text)
		default:
			wrong = append(wrong, text)
		}
	}
	reason := reasonPartiallyInvalid
	if !usable {
		reason = reasonInvalid
	}
	return []metav1.Condition{
		condition(ConditionAccepted, generation, wrong, reasonAccepted, reason),
		condition(ConditionResolvedRefs, generation, missing, reasonResolved, reasonNotFound),
	}
}

// maxMessage is what the API allows a condition's message.
const maxMessage = 32768

// condition is True with the one reason when there is nothing to say, False with the other and all that there is otherwise.
func condition(kind string, generation int64, messages []string, good, bad string) metav1.Condition {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: good, ObservedGeneration: generation}
	if len(messages) > 0 {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, bad, strings.Join(messages, "; ")
		c.Message = strings.ToValidUTF8(c.Message[:min(len(c.Message), maxMessage)], "")
	}
	return c
}
