package ambient

import (
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

// Service is a service on the wire, and what is needed to find its workloads.
type Service struct {
	Proto *workload.Service
	// Selector of workloads in the service's namespace; empty when it selects none.
	Selector map[string]string
	// Ports in the order of Proto.Ports, with what the wire does not carry.
	Ports   []ServicePort
	Binding Binding
	// Entry is the namespace/name of the ServiceEntry it comes from; empty for a Kubernetes Service.
	Entry string
	// Session is how sessions persist, by the service's own word.
	Session Session
	// ExportTo are the namespaces whose gateways and gRPC clients know it, as it says itself; ztunnels and waypoints always do.
	ExportTo []string
}

// ServicePort names a port.
type ServicePort struct {
	Name string
	// TargetName is set when the target is a named port of the pod.
	TargetName string
}

// Key is namespace/hostname.
func (s *Service) Key() string { return s.Proto.Namespace + "/" + s.Proto.Hostname }

// Equal compares by content.
func (s *Service) Equal(o *Service) bool {
	return proto.Equal(s.Proto, o.Proto) && mapsEqual(s.Selector, o.Selector) && slices.Equal(s.Ports, o.Ports) &&
		s.Entry == o.Entry && s.Session == o.Session && slices.Equal(s.ExportTo, o.ExportTo) && s.Binding.Waypoint == o.Binding.Waypoint && s.Binding.Reason == o.Binding.Reason
}

// annotatedExport is what a Service says of namespaces by annotation.
func annotatedExport(annotations map[string]string) []string {
	var out []string
	for ns := range strings.SplitSeq(annotations[annotationExportTo], ",") {
		if ns = strings.TrimSpace(ns); ns != "" {
			out = append(out, ns)
		}
	}
	return out
}

// ExportedTo reports whether a namespace is among those that the service is for; byDefault is where it does not say.
func (s *Service) ExportedTo(namespace string, byDefault []string) bool {
	to := s.ExportTo
	if len(to) == 0 {
		to = byDefault
	}
	switch {
	case len(to) == 0 || slices.Contains(to, "*"):
		return true
	case slices.Contains(to, "~"):
		return false
	}
	return slices.Contains(to, namespace) || namespace == s.Proto.Namespace && slices.Contains(to, ".")
}

func mapsEqual(a, b map[string]string) bool {
	return len(a) == len(b) && (len(a) == 0 || selects(a, b))
}

// KubernetesService translates a Service; nil for one that the mesh leaves to DNS (ExternalName).
func KubernetesService(mesh Mesh, svc *corev1.Service, ns *corev1.Namespace, waypoints Waypoints) *Service {
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	s := &Service{Selector: svc.Spec.Selector, Binding: Bind(svc.Labels, svc.Namespace, ns, trafficService, waypoints), Session: SessionOf(svc.Labels)}
	s.ExportTo = annotatedExport(svc.Annotations)
	s.Proto = &workload.Service{
		Name:               svc.Name,
		Namespace:          svc.Namespace,
		Hostname:           mesh.Hostname(svc.Namespace, svc.Name),
		Waypoint:           s.Binding.Ref,
		IngressUseWaypoint: s.Binding.Ref != nil && ingressUsesWaypoint(svc.Labels, ns),
		LoadBalancing:      loadBalancing(svc, ns),
		IpFamilies:         ipFamilies(svc.Spec.IPFamilies),
		Canonical:          true,
	}
	for _, ip := range virtualIPs(svc) {
		if a := networkAddress(mesh.Network, ip); a != nil {
			s.Proto.Addresses = append(s.Proto.Addresses, a)
		}
	}
	for _, p := range svc.Spec.Ports {
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
			continue
		}
		target := p.TargetPort.IntValue()
		if p.TargetPort.StrVal != "" {
			target = 0
		} else if target == 0 {
			target = int(p.Port)
		}
		s.Proto.Ports = append(s.Proto.Ports, &workload.Port{
			ServicePort: uint32(p.Port),
			TargetPort:  uint32(target),
			AppProtocol: servicePortProtocol(&p),
		})
		s.Ports = append(s.Ports, ServicePort{Name: p.Name, TargetName: p.TargetPort.StrVal})
	}
	return s
}

func ingressUsesWaypoint(labels map[string]string, ns *corev1.Namespace) bool {
	value, ok := labels[labelIngressUseWaypoint]
	if !ok && ns != nil {
		value = ns.Labels[labelIngressUseWaypoint]
	}
	uses, err := strconv.ParseBool(value)
	return err == nil && uses
}

// virtualIPs are the cluster IPs and the load balancer's, unless the load balancer wants to see the connections itself; none for a
// headless Service.
func virtualIPs(svc *corev1.Service) []string {
	ips := svc.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{svc.Spec.ClusterIP}
	}
	var out []string
	for _, ip := range ips {
		if ip != "" && ip != corev1.ClusterIPNone {
			out = append(out, ip)
		}
	}
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		itself := ingress.IPMode != nil && *ingress.IPMode == corev1.LoadBalancerIPModeProxy
		if ingress.IP != "" && !itself && !slices.Contains(out, ingress.IP) {
			out = append(out, ingress.IP)
		}
	}
	return out
}

func ipFamilies(families []corev1.IPFamily) workload.IPFamilies {
	switch {
	case len(families) > 1:
		return workload.IPFamilies_DUAL
	case len(families) == 0:
		return workload.IPFamilies_AUTOMATIC
	case families[0] == corev1.IPv6Protocol:
		return workload.IPFamilies_IPV6_ONLY
	}
	return workload.IPFamilies_IPV4_ONLY
}

// loadBalancing is nil when nothing but the default is asked for. The field counts before the annotation; a local traffic policy is
// strict and counts before both.
func loadBalancing(svc *corev1.Service, ns *corev1.Namespace) *workload.LoadBalancing {
	var lb *workload.LoadBalancing
	if svc.Spec.TrafficDistribution != nil {
		lb = distributionPreference(*svc.Spec.TrafficDistribution)
	}
	if lb == nil {
		lb = annotatedPreference(svc.Annotations, ns)
	}
	if svc.Spec.InternalTrafficPolicy != nil && *svc.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal {
		lb = &workload.LoadBalancing{
			RoutingPreference: []workload.LoadBalancing_Scope{workload.LoadBalancing_NODE},
			Mode:              workload.LoadBalancing_STRICT,
		}
	}
	if svc.Spec.PublishNotReadyAddresses {
		if lb == nil {
			lb = &workload.LoadBalancing{}
		}
		lb.HealthPolicy = workload.LoadBalancing_ALLOW_ALL
	}
	return lb
}

// annotatedPreference is what an annotation asks for, on the object before its namespace. The case of letters does not matter.
func annotatedPreference(annotations map[string]string, ns *corev1.Namespace) *workload.LoadBalancing {
	distribution := annotations[annotationTrafficDistribution]
	if distribution == "" && ns != nil {
		distribution = ns.Annotations[annotationTrafficDistribution]
	}
	for _, known := range []string{preferClose, preferSameZone, preferSameNode} {
		if strings.EqualFold(distribution, known) {
			return distributionPreference(known)
		}
	}
	return nil
}

// Values of trafficDistribution; the first is an older name of the second.
const (
	preferClose    = "PreferClose"
	preferSameZone = "PreferSameZone"
	preferSameNode = "PreferSameNode"
)

func distributionPreference(distribution string) *workload.LoadBalancing {
	zone := []workload.LoadBalancing_Scope{workload.LoadBalancing_NETWORK, workload.LoadBalancing_REGION, workload.LoadBalancing_ZONE}
	switch distribution {
	case preferClose, preferSameZone:
		return &workload.LoadBalancing{RoutingPreference: zone, Mode: workload.LoadBalancing_FAILOVER}
	case preferSameNode:
		return &workload.LoadBalancing{
			RoutingPreference: append(zone, workload.LoadBalancing_SUBZONE, workload.LoadBalancing_NODE),
			Mode:              workload.LoadBalancing_FAILOVER,
		}
	}
	return nil
}

// EntryBinding is what became of the waypoint that the labels of a ServiceEntry, or of its namespace, ask for. One that only its own
// namespace may know is not bound to a waypoint of another one, which would make it known there.
func EntryBinding(mesh Mesh, se *networkingv1.ServiceEntry, ns *corev1.Namespace, waypoints Waypoints) Binding {
	return bind(se.Labels, se.Namespace, ns, trafficService, waypoints, mesh.Visibility.Of(se.Namespace, ns) == VisibleToNamespace)
}

// EntryServes reports whether the hosts of a ServiceEntry become services, and of those whether namespaces other than its own know them.
// With DYNAMIC_DNS it is a waypoint that resolves them.
func EntryServes(mesh Mesh, se *networkingv1.ServiceEntry, ns *corev1.Namespace, waypoints Waypoints) (serves, everywhere bool) {
	visibility := mesh.Visibility.Of(se.Namespace, ns)
	serves = visibility != VisibleToNone &&
		(se.Spec.GetResolution() != networkingapi.ServiceEntry_DYNAMIC_DNS || EntryBinding(mesh, se, ns, waypoints).Ref != nil)
	return serves, serves && visibility != VisibleToNamespace
}

// EntryServices translates a ServiceEntry: one service for each host, none when it does not serve. allocate gives addresses to a
// host that has none of its own; it may be nil. Which of several services of a host is the canonical one is not known here.
func EntryServices(mesh Mesh, se *networkingv1.ServiceEntry, ns *corev1.Namespace, waypoints Waypoints, allocate func(key, host string) []string) []*Service {
	serves, everywhere := EntryServes(mesh, se, ns, waypoints)
	if !serves {
		return nil
	}
	var out []*Service
	binding := EntryBinding(mesh, se, ns, waypoints)
	for _, host := range se.Spec.GetHosts() {
		s := &Service{
			Selector: se.Spec.GetWorkloadSelector().GetLabels(),
			Binding:  binding,
			Entry:    se.Namespace + "/" + se.Name,
			Session:  SessionOf(se.Labels),
			ExportTo: se.Spec.GetExportTo(),
			Proto: &workload.Service{
				Name:               se.Name,
				Namespace:          se.Namespace,
				Hostname:           host,
				SubjectAltNames:    se.Spec.GetSubjectAltNames(),
				Waypoint:           binding.Ref,
				IngressUseWaypoint: binding.Ref != nil && ingressUsesWaypoint(se.Labels, ns),
				LoadBalancing:      annotatedPreference(se.Annotations, ns),
			},
		}
		if !everywhere {
			s.Proto.Visibility = workload.Service_NAMESPACE
		}
		if se.Spec.GetResolution() == networkingapi.ServiceEntry_NONE {
			s.Proto.LoadBalancing = &workload.LoadBalancing{Mode: workload.LoadBalancing_PASSTHROUGH, HealthPolicy: workload.LoadBalancing_ALLOW_ALL}
		}
		s.Proto.Addresses = entryAddresses(mesh, se, host, allocate)
		for _, p := range se.Spec.GetPorts() {
			if p.GetProtocol() == "UDP" {
				continue
			}
			s.Proto.Ports = append(s.Proto.Ports, entryPort(p))
			s.Ports = append(s.Ports, ServicePort{Name: p.GetName()})
		}
		out = append(out, s)
	}
	return out
}

func entryPort(p *networkingapi.ServicePort) *workload.Port {
	target := p.GetTargetPort()
	if target == 0 {
		target = p.GetNumber()
	}
	return &workload.Port{ServicePort: p.GetNumber(), TargetPort: target, AppProtocol: protocolByName(p.GetProtocol())}
}

// entryAddresses are those of the spec, else those that status assigns to the host, else allocated ones.
func entryAddresses(mesh Mesh, se *networkingv1.ServiceEntry, host string, allocate func(key, host string) []string) []*workload.NetworkAddress {
	texts := se.Spec.GetAddresses()
	if len(texts) == 0 {
		for _, a := range se.Status.GetAddresses() {
			if a.GetHost() == host {
				texts = append(texts, a.GetValue())
			}
		}
	}
	if len(texts) == 0 && allocate != nil && autoAllocates(se, host) {
		texts = allocate(se.Namespace+"/"+se.Name, host)
	}
	var out []*workload.NetworkAddress
	for _, text := range texts {
		if a := networkAddress(mesh.Network, text); a != nil {
			out = append(out, a)
		}
	}
	return out
}

// autoAllocates reports whether a host without address gets one: a wildcard has no single name to answer for, and without
// resolution the address is the client's.
func autoAllocates(se *networkingv1.ServiceEntry, host string) bool {
	return host != "" && host[0] != '*' && se.Spec.GetResolution() != networkingapi.ServiceEntry_NONE &&
		se.Labels["networking.istio.io/enable-autoallocate-ip"] != "false"
}
