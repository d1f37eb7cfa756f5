package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/network"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
)

const (
	// firstFree is the first address of the ranges that is given to Services which ask for none.
	firstFree = 32
	// firstNodePort is the lowest node port that is given out.
	firstNodePort, lastNodePort = 30000, 32767
)

// services gives Services their addresses and node ports.
func (c *Controllers) services() error {
	all := store.List[*corev1.Service](c.store)
	taken, ports := map[netip.Addr]string{}, map[int32]string{}
	var problems []error
	for _, s := range all {
		for _, text := range append(slices.Clone(s.Spec.ClusterIPs), s.Spec.ClusterIP) {
			if ip, err := netip.ParseAddr(text); err == nil {
				if other, ok := taken[ip]; ok && other != s.Namespace+"/"+s.Name {
					problems = append(problems, problem("Service", s, fmt.Errorf("spec.clusterIP: %s is the one of %s", ip, other)))
				}
				taken[ip] = s.Namespace + "/" + s.Name
			}
		}
		for _, in := range s.Status.LoadBalancer.Ingress {
			if ip, err := netip.ParseAddr(in.IP); err == nil {
				taken[ip] = s.Namespace + "/" + s.Name
			}
		}
		for _, p := range s.Spec.Ports {
			if p.NodePort != 0 {
				ports[p.NodePort] = s.Name
			}
		}
	}
	a := &allocator{taken: taken, ports: ports}
	for _, s := range all {
		next := s.DeepCopy()
		err := a.complete(next)
		if err == nil && !equality.Semantic.DeepEqual(s, next) {
			err = c.put(next)
		}
		problems = append(problems, problem("Service", s, err))
	}
	return errors.Join(problems...)
}

// allocator gives out what is free.
type allocator struct {
	taken map[netip.Addr]string
	ports map[int32]string
}

// complete fills in what the API server would.
func (a *allocator) complete(s *corev1.Service) error {
	spec := &s.Spec
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	for i := range spec.Ports {
		p := &spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == (intstr.IntOrString{}) {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
		if (spec.Type == corev1.ServiceTypeNodePort || spec.Type == corev1.ServiceTypeLoadBalancer) && p.NodePort == 0 {
			p.NodePort = a.nodePort(s.Name)
		}
	}
	if spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	if err := a.addresses(s); err != nil {
		return err
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer && len(s.Status.LoadBalancer.Ingress) == 0 {
		ip, err := a.balancer(s)
		if err != nil {
			return err
		}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip.String()}}
	}
	return nil
}

// balancer is the address of a Service's load balancer: the one that it asks for, or any.
func (a *allocator) balancer(s *corev1.Service) (netip.Addr, error) {
	if s.Spec.LoadBalancerIP == "" {
		return a.next(corev1.IPv4Protocol, s)
	}
	ip, err := netip.ParseAddr(s.Spec.LoadBalancerIP)
	if err != nil {
		return ip, fmt.Errorf("spec.loadBalancerIP: %w", err)
	}
	if other, ok := a.taken[ip]; ok {
		return ip, fmt.Errorf("spec.loadBalancerIP: %s is that of Service %s: choose another, or leave it out", ip, other)
	}
	a.taken[ip] = s.Namespace + "/" + s.Name
	return ip, nil
}

func (a *allocator) addresses(s *corev1.Service) error {
	spec := &s.Spec
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
		if ip, err := netip.ParseAddr(spec.ClusterIP); err == nil && ip.Is6() {
			spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
		}
	}
	if spec.IPFamilyPolicy == nil {
		policy := corev1.IPFamilyPolicySingleStack
		if len(spec.IPFamilies) > 1 {
			policy = corev1.IPFamilyPolicyRequireDualStack
		}
		spec.IPFamilyPolicy = &policy
	}
	if *spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack && len(spec.IPFamilies) == 1 {
		other := corev1.IPv6Protocol
		if spec.IPFamilies[0] == other {
			other = corev1.IPv4Protocol
		}
		spec.IPFamilies = append(spec.IPFamilies, other)
	}
	if spec.ClusterIP == corev1.ClusterIPNone {
		spec.ClusterIPs = []string{corev1.ClusterIPNone}
		return nil
	}
	if spec.ClusterIP != "" && len(spec.ClusterIPs) == 0 {
		if _, err := netip.ParseAddr(spec.ClusterIP); err != nil {
			return fmt.Errorf("spec.clusterIP: %w", err)
		}
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
	for i := len(spec.ClusterIPs); i < len(spec.IPFamilies); i++ {
		ip, err := a.next(spec.IPFamilies[i], s)
		if err != nil {
			return err
		}
		spec.ClusterIPs = append(spec.ClusterIPs, ip.String())
	}
	spec.ClusterIP = spec.ClusterIPs[0]
	return nil
}

func (a *allocator) next(family corev1.IPFamily, s *corev1.Service) (netip.Addr, error) {
	v4, v6 := network.ServiceRanges()
	within := v4
	if family == corev1.IPv6Protocol {
		within = v6
	}
	ip := within.Addr()
	for range firstFree {
		ip = ip.Next()
	}
	for ; within.Contains(ip); ip = ip.Next() {
		if _, ok := a.taken[ip]; !ok {
			a.taken[ip] = s.Namespace + "/" + s.Name
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address is left in %s", within)
}

func (a *allocator) nodePort(name string) int32 {
	for p := int32(firstNodePort); p <= lastNodePort; p++ {
		if _, ok := a.ports[p]; !ok {
			a.ports[p] = name
			return p
		}
	}
	return 0
}

// serviceLabel names the Service of an EndpointSlice.
const serviceLabel = discoveryv1.LabelServiceName

// endpoints keeps the EndpointSlices of Services with a selector.
func (c *Controllers) endpoints() error {
	pods := store.List[*corev1.Pod](c.store)
	have := map[store.Key]*discoveryv1.EndpointSlice{}
	for _, slice := range store.List[*discoveryv1.EndpointSlice](c.store) {
		if owner := metav1.GetControllerOf(slice); owner != nil && owner.Kind == "Service" {
			have[keyOf("discovery.k8s.io", "EndpointSlice", slice)] = slice
		}
	}
	var problems []error
	for _, s := range store.List[*corev1.Service](c.store) {
		if len(s.Spec.Selector) == 0 || s.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		for _, slice := range slicesOf(s, pods) {
			key := keyOf("discovery.k8s.io", "EndpointSlice", slice)
			old := have[key]
			delete(have, key)
			if old != nil && equality.Semantic.DeepEqual(old.Endpoints, slice.Endpoints) && equality.Semantic.DeepEqual(old.Ports, slice.Ports) {
				continue
			}
			problems = append(problems, problem("EndpointSlice", slice, c.put(slice)))
		}
	}
	for key := range have {
		c.writes++
		_, err := c.store.Delete(key)
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// slicesOf lists a Service's endpoints: a slice for each family, and for each set of target ports.
func slicesOf(s *corev1.Service, pods []*corev1.Pod) []*discoveryv1.EndpointSlice {
	selector := labels.SelectorFromSet(s.Spec.Selector)
	var out []*discoveryv1.EndpointSlice
	for _, family := range s.Spec.IPFamilies {
		byPorts := map[string]*discoveryv1.EndpointSlice{}
		name := s.Name + "-" + strings.ToLower(string(family))
		for _, p := range pods {
			ip := addressOf(p, family)
			if p.Namespace != s.Namespace || ip == "" || finished(p) || !selector.Matches(labels.Set(p.Labels)) {
				continue
			}
			ports := portsOf(s, p)
			id := portsID(ports)
			slice, ok := byPorts[id]
			if !ok {
				slice = newSlice(s, name, family, ports)
				if len(byPorts) > 0 {
					slice.Name = fmt.Sprintf("%s-%d", name, len(byPorts))
				}
				byPorts[id] = slice
				out = append(out, slice)
			}
			slice.Endpoints = append(slice.Endpoints, endpointOf(s, p, ip))
		}
		if len(byPorts) == 0 {
			out = append(out, newSlice(s, name, family, nil))
		}
	}
	return out
}

func newSlice(s *corev1.Service, name string, family corev1.IPFamily, ports []discoveryv1.EndpointPort) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: name, Labels: map[string]string{serviceLabel: s.Name, discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io"},
			OwnerReferences: []metav1.OwnerReference{controllerRef(s, "v1", "Service")},
		},
		AddressType: discoveryv1.AddressType(family), Endpoints: []discoveryv1.Endpoint{}, Ports: ports,
	}
}

func addressOf(p *corev1.Pod, family corev1.IPFamily) string {
	for _, ip := range p.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil && addr.Is4() == (family == corev1.IPv4Protocol) {
			return ip.IP
		}
	}
	return ""
}

func endpointOf(s *corev1.Service, p *corev1.Pod, ip string) discoveryv1.Endpoint {
	isReady, terminating := Ready(p), p.DeletionTimestamp != nil
	serving := isReady
	offered := isReady && !terminating || s.Spec.PublishNotReadyAddresses
	node := p.Spec.NodeName
	e := discoveryv1.Endpoint{
		Addresses: []string{ip}, NodeName: &node,
		Conditions: discoveryv1.EndpointConditions{Ready: &offered, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
	}
	if p.Spec.Hostname != "" && p.Spec.Subdomain == s.Name {
		hostname := p.Spec.Hostname
		e.Hostname = &hostname
	}
	return e
}

// portsOf resolves a Service's target ports for one pod; a name that the pod does not have is left out.
func portsOf(s *corev1.Service, p *corev1.Pod) []discoveryv1.EndpointPort {
	var out []discoveryv1.EndpointPort
	for _, sp := range s.Spec.Ports {
		number := sp.TargetPort.IntVal
		if sp.TargetPort.Type == intstr.String {
			number = namedPort(p, sp.TargetPort.StrVal, sp.Protocol)
		}
		if number == 0 {
			continue
		}
		name, protocol := sp.Name, sp.Protocol
		out = append(out, discoveryv1.EndpointPort{Name: &name, Port: &number, Protocol: &protocol, AppProtocol: sp.AppProtocol})
	}
	return out
}

func namedPort(p *corev1.Pod, name string, protocol corev1.Protocol) int32 {
	for _, container := range p.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == name && (port.Protocol == protocol || port.Protocol == "" && protocol == corev1.ProtocolTCP) {
				return port.ContainerPort
			}
		}
	}
	return 0
}

func portsID(ports []discoveryv1.EndpointPort) string {
	var b strings.Builder
	for _, p := range ports {
		fmt.Fprintf(&b, "%s/%d/%s;", *p.Name, *p.Port, *p.Protocol)
	}
	return b.String()
}
