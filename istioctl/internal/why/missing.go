package why

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
)

// hasPort is whether the service has the port that is asked for.
func (w *walk) hasPort(s *ambient.Service) bool {
	for _, p := range s.Proto.Ports {
		if uint16(p.ServicePort) == w.to.port {
			return true
		}
	}
	return false
}

func (w *walk) noPort(s *ambient.Service) Verdict {
	var have []string
	for _, p := range s.Proto.Ports {
		have = append(have, strconv.Itoa(int(p.ServicePort)))
	}
	list := strings.Join(have, ", ")
	remedy := "use port " + strings.Join(have, " or ")
	if len(have) == 0 {
		remedy = "give the service a TCP port"
	}
	return broken(remedy, "service %s has no port %d (it has %s): nobody answers at its address there", s.Key(), w.to.port, cmp.Or(list, "none")).
		about(w.m.serviceRef(s, "spec.ports"))
}

// vantage is the node from which endpoints are chosen, and whose it is.
type vantage struct{ whose, node string }

// atClient is where ztunnel, or the node itself, chooses for the client. A client outside of the cluster has no node.
func (w *walk) atClient() vantage {
	if w.from.workload == nil {
		return vantage{}
	}
	return vantage{"the client's", w.from.workload.Node}
}

// empty explains why nothing is behind a service's port, or behind a subset of it, for who chooses at a node.
func (w *walk) empty(s *ambient.Service, subset *networkingapi.Subset, subsetName string, at vantage) Verdict {
	port := uint32(0)
	if w.to != nil {
		port = uint32(w.to.port)
	}
	if s.Entry != "" {
		return broken("add spec.endpoints, or let a workloadSelector choose some", "ServiceEntry %s has no endpoints for %s", s.Entry, s.Proto.Hostname).
			about(w.m.serviceRef(s, "spec"))
	}
	if len(s.Selector) == 0 {
		return broken("give it a selector, or make an EndpointSlice for it", "service %s has no selector and no EndpointSlice, so nothing is behind it", s.Key()).
			about(w.m.serviceRef(s, "spec"))
	}
	pods := w.m.podsIn(s.Proto.Namespace, func(p *corev1.Pod) bool {
		return matchesSelectorSet(s.Selector, p.Labels) && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
	})
	if len(pods) == 0 {
		return w.selectsNothing(s)
	}
	if subset != nil {
		pods = slices.DeleteFunc(pods, func(p *corev1.Pod) bool {
			return !matchesSelectorSet(subset.GetLabels(), p.Labels)
		})
		if len(pods) == 0 {
			v := broken("deploy pods with these labels, or correct the labels of the subset", "subset %s of %s has no pods: none has the labels %s",
				subsetName, s.Proto.Hostname, labels.Set(subset.GetLabels()))
			return v.about(w.subsetRef(s, subsetName))
		}
	}
	var unready []string
	for _, p := range pods {
		if !ready(p) || p.DeletionTimestamp != nil {
			unready = append(unready, p.Name)
		}
	}
	if len(unready) == len(pods) {
		return broken("look at the pods: kubectl describe pod", "none of the %d pods of service %s is ready: %s", len(pods), s.Key(), strings.Join(unready[:min(3, len(unready))], ", ")).
			about(w.m.serviceRef(s, "spec.selector"), w.m.World.Of(pods[0], ""))
	}
	for i, p := range s.Proto.Ports {
		if p.ServicePort == port && s.Ports[i].TargetName != "" {
			return broken("name a port of the containers, or its number", "port %d of service %s leads to the port named %q, which no container of its pods has",
				port, s.Key(), s.Ports[i].TargetName).about(w.m.serviceRef(s, w.portField(s, i)+".targetPort"), w.m.World.Of(pods[0], "spec.containers"))
		}
	}
	if v := w.onlyLocal(s, pods, at); v != nil {
		return *v
	}
	v := broken("istioctl ztunnel-config workload shows what proxies know of the pods", "service %s has %d pods, but none may be used", s.Key(), len(pods)).
		about(w.m.serviceRef(s, ""))
	v.unexplained = true
	return v
}

// keepsToNode is whether only endpoints of the own node of who chooses may be used.
func (w *walk) keepsToNode(s *ambient.Service) bool {
	svc := object[*corev1.Service](w.m, "Service", s.Proto.Namespace, s.Proto.Name)
	return s.Entry == "" && svc != nil && svc.Spec.InternalTrafficPolicy != nil && *svc.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
}

// onlyLocal explains a service whose pods are on other nodes than the one whose pods may be used.
func (w *walk) onlyLocal(s *ambient.Service, pods []*corev1.Pod, at vantage) *Verdict {
	if at.whose == "" || !w.keepsToNode(s) {
		return nil
	}
	var nodes []string
	unready := ""
	for _, p := range pods {
		switch {
		case p.Spec.NodeName != at.node:
			nodes = addOnce(nodes, p.Spec.NodeName)
		case ready(p) && p.DeletionTimestamp == nil:
			return nil
		default:
			unready = " that is ready"
		}
	}
	v := broken("set internalTrafficPolicy to Cluster, or run a pod of the service on every node (DaemonSet)",
		"service %s has internalTrafficPolicy: Local, and no pod%s on %s node %s; its other pods are on %s", s.Key(), unready, at.whose, orNone(at.node, at.node == ""), strings.Join(nodes, ", ")).
		about(w.m.serviceRef(s, "spec.internalTrafficPolicy"))
	return &v
}

// selectsNothing explains a selector that no pod matches, by the pods that match it best.
func (w *walk) selectsNothing(s *ambient.Service) Verdict {
	v := broken("correct the selector, or the labels of the pods", "the selector of service %s (%s) matches no pod", s.Key(), labels.Set(s.Selector)).
		about(w.m.serviceRef(s, "spec.selector"))
	var near *corev1.Pod
	most, distance := 0, 1<<30
	for _, p := range w.m.podsIn(s.Proto.Namespace, func(*corev1.Pod) bool { return true }) {
		same, far := 0, 0
		for k, want := range s.Selector {
			have, ok := p.Labels[k]
			switch {
			case have == want:
				same += 2
			case ok:
				same++
				far += editDistance(have, want)
			}
		}
		if same > most || same == most && same > 0 && far < distance {
			near, most, distance = p, same, far
		}
	}
	if near == nil {
		for _, d := range w.m.deployments() {
			if d.Namespace == s.Proto.Namespace && matchesSelectorSet(s.Selector, d.Spec.Template.Labels) {
				v.Cause = fmt.Sprintf("service %s has no pods: Deployment %s has %d replicas", s.Key(), d.Name, replicas(d.Spec.Replicas))
				v.Remedy = "scale it up: kubectl scale deployment " + d.Name + " --replicas 1"
				return v.about(w.m.World.Of(d, "spec.replicas"))
			}
		}
		return v
	}
	var differs []string
	for _, k := range sortedKeys(s.Selector) {
		if have, ok := near.Labels[k]; !ok {
			differs = append(differs, k+" is missing")
		} else if have != s.Selector[k] {
			differs = append(differs, fmt.Sprintf("%s is %s", k, have))
		}
	}
	v.Cause += fmt.Sprintf("; the nearest is pod %s, whose label %s", near.Name, strings.Join(differs, ", "))
	return v.about(w.m.World.Of(near, "metadata.labels"))
}

func matchesSelectorSet(selector, set map[string]string) bool {
	return labels.SelectorFromSet(selector).Matches(labels.Set(set))
}

func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// subset finds the one of a name, and the rule that has it.
func (w *walk) subset(host, name string) (*networkingv1.DestinationRule, int) {
	for _, dr := range w.destinationRules(host) {
		for i, s := range dr.Spec.GetSubsets() {
			if s.GetName() == name {
				return dr, i
			}
		}
	}
	return nil, -1
}

func (w *walk) subsetRef(s *ambient.Service, name string) *Ref {
	dr, i := w.subset(s.Proto.Hostname, name)
	if dr == nil {
		return nil
	}
	return w.m.World.Of(dr, fmt.Sprintf("spec.subsets[%d].labels", i))
}

// binding is the waypoint that the destination asks for.
func (w *walk) binding() (ambient.Binding, bool) {
	if w.to == nil {
		return ambient.Binding{}, false
	}
	if s := w.m.service(w.to.service); s != nil {
		return s.Binding, s.Binding.Waypoint != ""
	}
	if w.to.workload != nil {
		if t := w.m.workloads[w.to.workload.UID]; t != nil {
			return t.Binding, t.Binding.Waypoint != ""
		}
	}
	return ambient.Binding{}, false
}

// bindingRef is the label that asks for the waypoint.
func (w *walk) bindingRef() *Ref {
	const label = "istio.io/use-waypoint"
	if s := w.m.service(w.to.service); s != nil {
		return w.labelRef(w.m.serviceRef(s, labelField(label)), label, s.Proto.Namespace)
	}
	if w.to.workload == nil {
		return nil
	}
	return w.labelRef(w.m.workloadRef(w.to.workload, labelField(label)), label, w.to.workload.Namespace)
}

// labelRef is of an object, or else of its namespace, whichever has the label.
func (w *walk) labelRef(own *Ref, label, namespace string) *Ref {
	kind := own.Kind
	if o := w.m.objects[key(kind, own.Namespace, own.Name)]; o != nil && o.GetLabels()[label] != "" {
		return own
	}
	if p := w.m.podOf(w.to.workload); p != nil && p.Labels[label] != "" {
		return own
	}
	return w.m.World.Ref("Namespace", "", namespace, labelField(label))
}

// destinationRules are those for a host.
func (w *walk) destinationRules(host string) (out []*networkingv1.DestinationRule) {
	for _, dr := range all[*networkingv1.DestinationRule](w.m, "DestinationRule") {
		full := dr.Spec.GetHost()
		if !strings.Contains(full, ".") {
			full = w.m.Mesh.Settings().Hostname(dr.Namespace, full)
		}
		if full == host {
			out = append(out, dr)
		}
	}
	return out
}
