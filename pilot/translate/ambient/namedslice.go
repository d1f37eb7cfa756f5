package ambient

import (
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

// sliceController makes the slices of Services that have a selector.
const sliceController = "endpointslice-controller.k8s.io"

// NamedSlice is an EndpointSlice that somebody has written, with its Service: the pods that it names serve it.
type NamedSlice struct {
	Slice   *discoveryv1.EndpointSlice
	Service *Service
}

// NamedPods are the pods of its namespace that a slice names as endpoints; none for one that follows from a selector, as the pods that it
// selects are known by that.
func NamedPods(slice *discoveryv1.EndpointSlice) []string {
	if slice.Labels[discoveryv1.LabelManagedBy] == sliceController {
		return nil
	}
	var out []string
	for _, e := range slice.Endpoints {
		if namesPod(slice, e) {
			out = append(out, e.TargetRef.Name)
		}
	}
	return out
}

func namesPod(slice *discoveryv1.EndpointSlice, e discoveryv1.Endpoint) bool {
	return e.TargetRef != nil && e.TargetRef.Kind == "Pod" && (e.TargetRef.Namespace == "" || e.TargetRef.Namespace == slice.Namespace)
}

// join adds what slices say of a pod to the services that it serves.
func join(w *workload.Workload, pod *Pod, named []NamedSlice) {
	for _, n := range named {
		if len(n.Service.Selector) > 0 || w.Services[n.Service.Key()] != nil {
			continue
		}
		for _, e := range n.Slice.Endpoints {
			// The UID, if it says one, may be that of another pod, which had the name before.
			other := e.TargetRef != nil && e.TargetRef.UID != "" && pod.UID != "" && e.TargetRef.UID != pod.UID
			if !namesPod(n.Slice, e) || other || e.TargetRef.Name != pod.Name || e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			if ports := slicePorts(n.Service, sliceTargets(n.Slice)); len(ports) > 0 {
				w.Services[n.Service.Key()] = &workload.PortList{Ports: ports}
			}
		}
	}
}
