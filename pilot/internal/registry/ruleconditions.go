package registry

import (
	"fmt"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
)

// ruleConditions name what of a DestinationRule has no effect.
func ruleConditions(o *networkingv1.DestinationRule) []metav1.Condition {
	var unsupported []string
	note := func(path, why string) { unsupported = append(unsupported, path+": "+why) }
	checkPolicy("spec.trafficPolicy", o.Spec.GetTrafficPolicy(), note)
	for i, s := range o.Spec.GetSubsets() {
		checkPolicy(fmt.Sprintf("spec.subsets[%d].trafficPolicy", i), s.GetTrafficPolicy(), note)
	}
	if len(unsupported) > 0 {
		return []metav1.Condition{newCondition(o, gateway.ConditionAccepted, false, reasonUnsupported, strings.Join(unsupported, "; "))}
	}
	return []metav1.Condition{newCondition(o, gateway.ConditionAccepted, true, "Accepted", "")}
}

func checkPolicy(path string, p *networkingapi.TrafficPolicy, note func(path, why string)) {
	if p == nil {
		return
	}
	checkSettings(path, p.GetLoadBalancer(), note)
	if p.GetTunnel() != nil {
		note(path+".tunnel", "tunnels are not supported")
	}
	for i, port := range p.GetPortLevelSettings() {
		checkSettings(fmt.Sprintf("%s.portLevelSettings[%d]", path, i), port.GetLoadBalancer(), note)
	}
}

func checkSettings(path string, lb *networkingapi.LoadBalancerSettings, note func(path, why string)) {
	if lb.GetZoneAwareLbSetting() != nil {
		note(path+".loadBalancer.zoneAwareLbSetting", "is not for ambient meshes; use localityLbSetting")
	}
}
