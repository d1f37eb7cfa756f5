package gateways

import (
	"cmp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/deploy"
)

const domain = "cluster.local"

// State is what a Gateway's status tells of.
type State struct {
	// Problem is why the Gateway is not deployed as it asks to be.
	Problem error
	Service *corev1.Service
	// Ready is how many of its pods are.
	Ready int
}

// Status returns the Gateway's status: that of the controller, with what others have written into it left as it is.
//
// A Gateway has no address before one of its pods is ready, so that nobody is sent to one that does not serve yet. It keeps
// its addresses when its pods go: who is bound to a waypoint must not get past it because it is down.
func Status(gw *gatewayv1.Gateway, controller gatewayv1.GatewayController, s State, now time.Time) gatewayv1.GatewayStatus {
	status := *gw.Status.DeepCopy()
	known := deploy.Addresses(gw, controller, s.Service, domain)
	if s.Ready > 0 || len(status.Addresses) > 0 {
		status.Addresses = known
	}
	accepted := metav1.Condition{
		Type: string(gatewayv1.GatewayConditionAccepted), Status: metav1.ConditionTrue,
		Reason: string(gatewayv1.GatewayReasonAccepted), Message: "Resource accepted",
	}
	if s.Problem != nil {
		accepted.Status, accepted.Reason, accepted.Message = metav1.ConditionFalse, string(gatewayv1.GatewayReasonInvalidParameters), s.Problem.Error()
	}
	setCondition(&status, gw.Generation, accepted, now)
	setCondition(&status, gw.Generation, programmed(s, len(known) > 0), now)
	return status
}

func programmed(s State, hasAddress bool) metav1.Condition {
	out := metav1.Condition{Type: string(gatewayv1.GatewayConditionProgrammed), Status: metav1.ConditionFalse}
	switch {
	case s.Problem != nil:
		out.Reason, out.Message = string(gatewayv1.GatewayReasonInvalid), "the gateway is not deployed as it asks to be"
	case s.Service == nil || !hasAddress:
		out.Reason, out.Message = string(gatewayv1.GatewayReasonAddressNotAssigned), "its Service has no address yet"
	case s.Ready == 0:
		out.Reason, out.Message = string(gatewayv1.GatewayReasonNoResources), "no pod of Deployment "+s.Service.Name+" is ready"
	default:
		out.Status, out.Reason = metav1.ConditionTrue, string(gatewayv1.GatewayReasonProgrammed)
		out.Message = "Resource programmed, assigned to service(s) " + strings.Join(deploy.Endpoints(s.Service, domain), " and ")
	}
	return out
}

// setCondition writes a condition; its time changes only when its status does.
func setCondition(status *gatewayv1.GatewayStatus, generation int64, next metav1.Condition, now time.Time) {
	next.ObservedGeneration, next.LastTransitionTime = generation, metav1.NewTime(now.Truncate(time.Second))
	i := slices.IndexFunc(status.Conditions, func(c metav1.Condition) bool { return c.Type == next.Type })
	if i < 0 {
		status.Conditions = append(status.Conditions, next)
		slices.SortFunc(status.Conditions, func(a, b metav1.Condition) int { return cmp.Compare(a.Type, b.Type) })
		return
	}
	if old := status.Conditions[i]; old.Status == next.Status {
		next.LastTransitionTime = old.LastTransitionTime
	}
	status.Conditions[i] = next
}
