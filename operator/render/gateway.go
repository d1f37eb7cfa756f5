package render

import (
	"maps"
	"slices"
)

// gatewayValues translates what Istio's installation says of a gateway into values of the chart gateway: the labels of the component,
// and values.gateways.istio-ingressgateway or -egressgateway.
func (r *renderer) gatewayValues(p part) (map[string]any, error) {
	kind, path := "istio-ingressgateway", "spec.values.gateways.istio-ingressgateway"
	if p.name == EgressGateways {
		kind, path = "istio-egressgateway", "spec.values.gateways.istio-egressgateway"
	}
	all := section(r.values, "gateways")
	for _, key := range slices.Sorted(maps.Keys(all)) {
		known := []string{"istio-ingressgateway", "istio-egressgateway", "securityContext", "seccompProfile"}
		if !slices.Contains(known, key) && section(r.op.Spec.Values, "gateways")[key] != nil {
			return nil, unknown("spec.values.gateways."+key, key, known)
		}
	}
	labels := map[string]any{}
	for key, value := range p.gateway.Label {
		labels[key] = value
	}
	out := map[string]any{
		"name":    p.release,
		"labels":  labels,
		"service": map[string]any{"ports": gatewayPorts(p.name)},
	}
	if p.name == EgressGateways {
		out["service"].(map[string]any)["type"] = "ClusterIP"
	}
	if context, ok := all["securityContext"]; ok {
		out["securityContext"] = context
	}
	given := section(all, kind)
	for _, key := range slices.Sorted(maps.Keys(given)) {
		set, known := gatewayKey(key, given[key])
		if !known {
			if _, checked := section(section(r.op.Spec.Values, "gateways"), kind)[key]; checked && !r.o.Force {
				return nil, unknown(path+"."+key, key, gatewayKeys())
			}
			continue
		}
		out = merge(out, set)
	}
	return out, nil
}

// gatewayPorts are the ports of Istio's own gateways: those below 1024 are served 8000 higher.
func gatewayPorts(component string) []any {
	port := func(name string, number, target int) any {
		return map[string]any{"name": name, "port": number, "targetPort": target, "protocol": "TCP"}
	}
	out := []any{port("http2", 80, 8080), port("https", 443, 8443)}
	if component == EgressGateways {
		return out
	}
	return append([]any{port("status-port", 15021, 15021)}, append(out, port("tcp", 31400, 31400), port("tls", 15443, 15443))...)
}

// same are keys that are called alike in both.
func same() []string {
	return []string{"name", "resources", "env", "nodeSelector", "tolerations", "affinity", "podAnnotations", "labels", "topologySpreadConstraints", "replicaCount"}
}

// ofService are the keys that are the Service's, and their names there.
func ofService() map[string]string {
	return map[string]string{
		"type": "type", "ports": "ports", "serviceAnnotations": "annotations", "loadBalancerIP": "loadBalancerIP",
		"loadBalancerSourceRanges": "loadBalancerSourceRanges", "loadBalancerClass": "loadBalancerClass",
		"externalTrafficPolicy": "externalTrafficPolicy", "externalIPs": "externalIPs", "ipFamilyPolicy": "ipFamilyPolicy", "ipFamilies": "ipFamilies",
	}
}

// ofAutoscaling are the keys of the autoscaler, and their names there.
func ofAutoscaling() map[string]string {
	return map[string]string{"autoscaleEnabled": "enabled", "autoscaleMin": "minReplicas", "autoscaleMax": "maxReplicas", "autoscaleBehavior": "autoscaleBehavior"}
}

func gatewayKeys() []string {
	out := append(same(), slices.Sorted(maps.Keys(ofService()))...)
	return append(append(out, slices.Sorted(maps.Keys(ofAutoscaling()))...), "cpu", "memory", "serviceAccount", "podDisruptionBudget")
}

// gatewayKey translates one value.
func gatewayKey(key string, value any) (set map[string]any, known bool) {
	if slices.Contains(same(), key) || key == "serviceAccount" || key == "podDisruptionBudget" {
		return map[string]any{key: value}, true
	}
	if name, ok := ofService()[key]; ok {
		return map[string]any{"service": map[string]any{name: value}}, true
	}
	if name, ok := ofAutoscaling()[key]; ok {
		return map[string]any{"autoscaling": map[string]any{name: value}}, true
	}
	target, _ := value.(map[string]any)
	switch key {
	case "cpu":
		return map[string]any{"autoscaling": map[string]any{"targetCPUUtilizationPercentage": target["targetAverageUtilization"]}}, true
	case "memory":
		return map[string]any{"autoscaling": map[string]any{"targetMemoryUtilizationPercentage": target["targetAverageUtilization"]}}, true
	}
	return nil, false
}
