package describe

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
)

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// Service describes a service.
func (m *Mesh) Service(w io.Writer, namespace, name string) error {
	s := m.service(namespace, name)
	if s == nil {
		return fmt.Errorf("there is no service %s in namespace %s%s", name, namespace, m.meant(namespace, name))
	}
	p := &printer{w: w}
	m.describeService(p, s, nil)
	know := m.known(s)
	if know != nil {
		m.endpoints(p, s)
	}
	if know != nil && know.Proto.GetWaypoint() != nil {
		for _, one := range m.policiesAtWaypoint(know.Binding.Waypoint, s) {
			p.line(1, "Authorization at waypoint %s: %s", know.Binding.Waypoint, one)
		}
	}
	m.exposure(p, s, nil)
	return p.err
}

// meant suggests services of similar names.
func (m *Mesh) meant(namespace, name string) string {
	for _, s := range m.services {
		if s.Name == name || s.Namespace == namespace && (strings.HasPrefix(s.Name, name) || strings.HasPrefix(name, s.Name)) {
			return fmt.Sprintf("; did you mean %s.%s?", s.Name, s.Namespace)
		}
	}
	return ""
}

// describeService describes a service as far as it concerns a pod; of all its pods when pod is nil.
func (m *Mesh) describeService(p *printer, s *corev1.Service, pod *corev1.Pod) {
	name := s.Name
	if pod == nil || s.Namespace != "default" {
		name += "." + s.Namespace
	}
	p.line(0, "Service: %s", name)
	for _, port := range s.Spec.Ports {
		p.line(1, "Port: %s", portText(port, pod))
	}
	know := m.known(s)
	if know == nil {
		p.line(1, "It is a name for %q in DNS: the mesh does nothing with it", s.Spec.ExternalName)
		return
	}
	m.binding(p, know.Binding, know.Proto.GetWaypoint() != nil, "to the service")
	l7 := know.Proto.GetWaypoint() != nil
	m.destinationRules(p, s, pod, l7)
	m.virtualServices(p, s, pod, l7)
	m.serviceRoutes(p, s, l7)
	m.serviceLimits(p, s, know.Binding.Waypoint, l7)
}

func portText(port corev1.ServicePort, pod *corev1.Pod) string {
	name := port.Name
	if name == "" {
		name = "<unnamed>"
	}
	protocol := "auto-detect"
	head, _, _ := strings.Cut(port.Name, "-")
	switch hint := strings.ToLower(cmp.Or(deref(port.AppProtocol), head)); hint {
	case "http", "http2", "https", "tcp", "tls", "grpc", "mongo", "redis", "mysql", "udp":
		protocol = strings.ToUpper(hint)
	case "kubernetes.io/h2c":
		protocol = "HTTP2"
	}
	if port.Protocol == corev1.ProtocolUDP {
		protocol = "UDP"
	}
	target := cmp.Or(port.TargetPort.String(), "0")
	if target == "0" {
		target = fmt.Sprint(port.Port)
	}
	if pod != nil && port.TargetPort.StrVal != "" {
		target = "?"
		for _, c := range pod.Spec.Containers {
			for _, one := range c.Ports {
				if one.Name == port.TargetPort.StrVal {
					target = fmt.Sprint(one.ContainerPort)
				}
			}
		}
	}
	return fmt.Sprintf("%s %d/%s targets pod port %s", name, port.Port, protocol, target)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// endpoints says how many pods serve.
func (m *Mesh) endpoints(p *printer, s *corev1.Service) {
	all, serving, meshed := 0, 0, 0
	for _, pod := range m.pods {
		if !selects(s, pod) || pod.DeletionTimestamp != nil {
			continue
		}
		all++
		if ready(pod) {
			serving++
		}
		if w := m.workload(pod); w != nil && (w.Proto.GetTunnelProtocol() != 0 || w.Sidecar) {
			meshed++
		}
	}
	if len(s.Spec.Selector) == 0 {
		p.line(1, "Pods: it has no selector")
		return
	}
	p.line(1, "Pods: %d, %d ready, %d in the mesh", all, serving, meshed)
}

// hostOf tells whether a host as an object of a namespace writes it is a service.
func (m *Mesh) hostOf(host, namespace string, s *corev1.Service) bool {
	full := m.control.Settings().Hostname(s.Namespace, s.Name)
	if suffix, wild := strings.CutPrefix(host, "*"); wild {
		return strings.HasSuffix(full, suffix)
	}
	if !strings.Contains(host, ".") {
		host += "." + namespace
	}
	return host == full || host == s.Name+"."+s.Namespace || host == s.Name+"."+s.Namespace+".svc"
}

// destinationRules describes those of a service, and which subsets are the pod's.
func (m *Mesh) destinationRules(p *printer, s *corev1.Service, pod *corev1.Pod, l7 bool) {
	for _, r := range m.rules {
		if !m.hostOf(r.Spec.GetHost(), r.Namespace, s) {
			continue
		}
		p.line(0, "DestinationRule: %s for %q", displayed(r.Namespace, r.Name, s.Namespace), r.Spec.GetHost())
		var matching, others []string
		for _, subset := range r.Spec.GetSubsets() {
			if pod == nil || within(subset.GetLabels(), pod.Labels) {
				matching = append(matching, subset.GetName())
			} else {
				others = append(others, subset.GetName())
			}
		}
		switch {
		case pod == nil && len(matching) > 0:
			p.line(1, "Subsets: %s", strings.Join(matching, ","))
		case len(matching) > 0:
			p.line(1, "Matching subsets: %s", strings.Join(matching, ","))
			if len(others) > 0 {
				p.line(2, "(Non-matching subsets %s)", strings.Join(others, ","))
			}
		case len(others) > 0:
			p.line(1, "WARNING: the pod is in none of the subsets %s", strings.Join(others, ","))
		}
		p.line(1, "%s", trafficPolicy(r))
		if !l7 {
			p.line(1, "WARNING: without a waypoint it has no effect on calls from the mesh")
		}
	}
}

func displayed(namespace, name, near string) string {
	if namespace == near {
		return name
	}
	return name + "." + namespace
}

func trafficPolicy(r *networkingv1.DestinationRule) string {
	policy := r.Spec.GetTrafficPolicy()
	if policy == nil {
		return "No Traffic Policy"
	}
	var out []string
	if tls := policy.GetTls(); tls != nil {
		mode := "TLS Mode: " + tls.GetMode().String()
		if name := tls.GetCredentialName(); name != "" {
			mode += " with credential " + name
		}
		out = append(out, mode)
	}
	if policy.GetLoadBalancer() != nil {
		out = append(out, "load balancer")
		if set := policy.GetLoadBalancer().GetLocalityLbSetting(); set != nil {
			out = append(out, "localities")
		}
	}
	if policy.GetConnectionPool() != nil {
		out = append(out, "connection pool")
	}
	if policy.GetOutlierDetection() != nil {
		out = append(out, "outlier detection")
	}
	if policy.GetProxyProtocol() != nil {
		out = append(out, "PROXY protocol "+policy.GetProxyProtocol().GetVersion().String())
	}
	if policy.GetRetryBudget() != nil {
		out = append(out, "retry budget")
	}
	if len(out) == 0 {
		return "Traffic Policy without settings that are described here"
	}
	return "Traffic Policy " + strings.Join(out, "; ")
}

// virtualServices describes how requests to a service from the mesh are routed.
func (m *Mesh) virtualServices(p *printer, s *corev1.Service, pod *corev1.Pod, l7 bool) {
	for _, v := range m.virtual {
		if gateways := v.Spec.GetGateways(); len(gateways) > 0 && !slices.Contains(gateways, "mesh") {
			continue
		}
		if !slices.ContainsFunc(v.Spec.GetHosts(), func(h string) bool { return m.hostOf(h, v.Namespace, s) }) {
			continue
		}
		p.line(0, "VirtualService: %s", displayed(v.Namespace, v.Name, s.Namespace))
		if !l7 {
			p.line(1, "WARNING: without a waypoint it has no effect on calls from the mesh: istioctl waypoint apply -n %s --enroll-namespace", s.Namespace)
		}
		for _, r := range v.Spec.GetHttp() {
			p.line(1, "%s -> %s", httpMatches(r), m.destinations(v, r, s, pod))
		}
		if n := len(v.Spec.GetTcp()) + len(v.Spec.GetTls()); n > 0 {
			p.line(1, "%d TCP or TLS routes", n)
		}
	}
}

// destinations says where a route leads, and which part of it reaches the pod.
func (m *Mesh) destinations(v *networkingv1.VirtualService, r *networkingapi.HTTPRoute, s *corev1.Service, pod *corev1.Pod) string {
	switch {
	case r.GetRedirect() != nil:
		return "redirect"
	case r.GetDirectResponse() != nil:
		return fmt.Sprintf("answer %d", r.GetDirectResponse().GetStatus())
	case r.GetDelegate() != nil:
		return fmt.Sprintf("as VirtualService %s says", r.GetDelegate().GetName())
	}
	var out []string
	for _, d := range r.GetRoute() {
		text := d.GetDestination().GetHost()
		if subset := d.GetDestination().GetSubset(); subset != "" {
			text += " subset " + subset
			if pod != nil && m.hostOf(d.GetDestination().GetHost(), v.Namespace, s) && !m.inSubset(s, pod, subset) {
				text += " (not this pod)"
			}
		}
		if len(r.GetRoute()) > 1 {
			text += fmt.Sprintf(" Weight %d%%", d.GetWeight())
		}
		out = append(out, text)
	}
	for _, extra := range []struct {
		set  bool
		name string
	}{
		{r.GetFault() != nil, "with faults"},
		{r.GetTimeout() != nil, "with a timeout"},
		{r.GetMirror() != nil || len(r.GetMirrors()) > 0, "mirrored"},
	} {
		if extra.set {
			out[len(out)-1] += ", " + extra.name
		}
	}
	return strings.Join(out, ", ")
}

func (m *Mesh) inSubset(s *corev1.Service, pod *corev1.Pod, name string) bool {
	for _, r := range m.rules {
		if !m.hostOf(r.Spec.GetHost(), r.Namespace, s) {
			continue
		}
		for _, subset := range r.Spec.GetSubsets() {
			if subset.GetName() == name && within(subset.GetLabels(), pod.Labels) {
				return true
			}
		}
	}
	return false
}

// httpMatches says which requests a route takes.
func httpMatches(r *networkingapi.HTTPRoute) string {
	var out []string
	for _, match := range r.GetMatch() {
		var parts []string
		if uri := match.GetUri(); uri != nil {
			parts = append(parts, stringMatch(uri))
		}
		if method := match.GetMethod(); method != nil {
			parts = append(parts, "method "+stringMatch(method))
		}
		for _, name := range sorted(match.GetHeaders()) {
			parts = append(parts, fmt.Sprintf("header %s=%s", name, stringMatch(match.GetHeaders()[name])))
		}
		for _, name := range sorted(match.GetQueryParams()) {
			parts = append(parts, fmt.Sprintf("parameter %s=%s", name, stringMatch(match.GetQueryParams()[name])))
		}
		if len(parts) == 0 {
			parts = []string{"/*"}
		}
		out = append(out, strings.Join(parts, " and "))
	}
	if len(out) == 0 {
		return "/*"
	}
	return strings.Join(out, ", ")
}

// stringMatch writes what a text has to be; * is any.
func stringMatch(s *networkingapi.StringMatch) string {
	switch {
	case s.GetPrefix() != "":
		return s.GetPrefix() + "*"
	case s.GetRegex() != "":
		return "~" + s.GetRegex()
	case s.GetExact() != "":
		return s.GetExact()
	}
	return "*"
}
