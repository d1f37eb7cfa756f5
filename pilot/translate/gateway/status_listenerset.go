package gateway

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// reasonParentNotProgrammed is a reason of the Gateway API that its Go package has no constant for.
const reasonParentNotProgrammed = "ParentNotProgrammed"

// gatewayOf is the Gateway of a ListenerSet, whether or not it takes it; nil when it is not there, or not ours.
func gatewayOf(v View, set *gatewayv1.ListenerSet) *gatewayv1.Gateway {
	namespace, name, ok := ListenerSetParent(set)
	if !ok {
		return nil
	}
	gw := v.Gateway(namespace, name)
	if gw == nil || controllerOf(v, gw) == "" {
		return nil
	}
	return gw
}

// ListenerSetStatus is the status of a ListenerSet; nil when no Gateway of ours is its parent. state is what is known of that Gateway; the
// routes are all candidates.
func ListenerSetStatus(v View, set *gatewayv1.ListenerSet, state GatewayState, routes Routes) *gatewayv1.ListenerSetStatus {
	gw := gatewayOf(v, set)
	if gw == nil {
		return nil
	}
	neither := func(accepted gatewayv1.ListenerSetConditionReason, programmed, message string) *gatewayv1.ListenerSetStatus {
		return &gatewayv1.ListenerSetStatus{Conditions: []metav1.Condition{
			condition(string(gatewayv1.ListenerSetConditionAccepted), set.Generation, []string{message}, "", string(accepted)),
			condition(string(gatewayv1.ListenerSetConditionProgrammed), set.Generation, []string{message}, "", programmed),
		}}
	}
	if problem := ListenerSetAllowed(v, gw, set); problem != "" {
		return neither(gatewayv1.ListenerSetReasonNotAllowed, string(gatewayv1.ListenerSetReasonNotAllowed), problem)
	}
	own := judgeListeners(v, gw, mergedSet(v, gw, set), routes.objects())
	var out *gatewayv1.ListenerSetStatus
	switch {
	case state.Problem != "":
		out = neither(gatewayv1.ListenerSetReasonParentNotAccepted, reasonParentNotProgrammed, "the Gateway is not deployed as it asks to be")
	case !own.programmed:
		out = neither(gatewayv1.ListenerSetReasonListenersNotValid, string(gatewayv1.ListenerSetReasonListenersNotValid), "no listener can be served")
	default:
		accepted := condition(string(gatewayv1.ListenerSetConditionAccepted), set.Generation, nil, string(gatewayv1.ListenerSetReasonAccepted), "")
		accepted.Message = "the Gateway takes the listeners"
		if len(own.refused) > 0 {
			accepted.Reason = string(gatewayv1.ListenerSetReasonListenersNotValid)
			accepted.Message = fmt.Sprintf("listeners that cannot be served: %v", own.refused)
		}
		out = &gatewayv1.ListenerSetStatus{Conditions: []metav1.Condition{accepted, programmedSet(gw, set, state)}}
	}
	for _, status := range own.statuses {
		out.Listeners = append(out.Listeners, gatewayv1.ListenerEntryStatus(status))
	}
	return out
}

// programmedSet is the condition of a ListenerSet that is served if its Gateway is.
func programmedSet(gw *gatewayv1.Gateway, set *gatewayv1.ListenerSet, state GatewayState) metav1.Condition {
	kind := string(gatewayv1.ListenerSetConditionProgrammed)
	if parent := programmed(gw, state, true); parent.Status != metav1.ConditionTrue {
		return condition(kind, set.Generation, []string{"the Gateway: " + parent.Message}, "", reasonParentNotProgrammed)
	}
	c := condition(kind, set.Generation, nil, string(gatewayv1.ListenerSetReasonProgrammed), "")
	c.Message = "the Gateway serves the listeners"
	return c
}

// mergedSet is a ListenerSet, judged with its Gateway and its other ListenerSets; with nothing if the Gateway does not take it.
func mergedSet(v ListenerSetView, gw *gatewayv1.Gateway, set *gatewayv1.ListenerSet) mergedParent {
	for _, p := range merge(v, gw)[1:] {
		if p.namespace == set.Namespace && p.name == set.Name {
			return p
		}
	}
	return mergedParent{routeParent: setAsParent(set)}
}

// acceptedSets counts the ListenerSets of a Gateway of which at least one listener is served.
func acceptedSets(v View, gw *gatewayv1.Gateway, sets []mergedParent) (n int32) {
	for _, p := range sets {
		if judgeListeners(v, gw, p, nil).programmed {
			n++
		}
	}
	return n
}
