// Package describe says in prose what the mesh does with a pod or a service: whether it is in the mesh and by which proxies, who may call
// it, how requests to it are routed, and from where outside it can be reached.
//
// It works on objects and asks the control plane's own code (pilot/simulate) what becomes of them; where they come from is the caller's
// business.
package describe

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/simulate"
	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/kube/policyapi"
)

// Labels that say what is in the mesh.
const (
	labelMode     = "istio.io/dataplane-mode"
	labelWaypoint = "istio.io/use-waypoint"
	labelGateway  = "gateway.networking.k8s.io/gateway-name"
	labelRevision = "istio.io/rev"
	redirection   = "ambient.istio.io/redirection"
)

const line = "--------------------"

// Mesh is the objects of a mesh, and what its control plane makes of them.
type Mesh struct {
	control *simulate.Mesh

	pods       []*corev1.Pod
	services   []*corev1.Service
	namespaces map[string]*corev1.Namespace
	virtual    []*networkingv1.VirtualService
	rules      []*networkingv1.DestinationRule
	classic    []*networkingv1.Gateway
	gateways   []*gatewayv1.Gateway
	sets       []*gatewayv1.ListenerSet
	routes     []route
	peers      []*securityv1.PeerAuthentication
	policies   []*securityv1.AuthorizationPolicy
	limits     []*policyapi.RateLimitPolicy
}

// New reads objects.
func New(settings simulate.Settings, objects []kube.Object) (*Mesh, error) {
	control, err := simulate.New(settings, objects)
	if err != nil {
		return nil, err
	}
	m := &Mesh{control: control, namespaces: map[string]*corev1.Namespace{}}
	for _, o := range objects {
		switch o := o.(type) {
		case *corev1.Pod:
			m.pods = append(m.pods, o)
		case *corev1.Service:
			m.services = append(m.services, o)
		case *corev1.Namespace:
			m.namespaces[o.Name] = o
		case *networkingv1.VirtualService:
			m.virtual = append(m.virtual, o)
		case *networkingv1.DestinationRule:
			m.rules = append(m.rules, o)
		case *networkingv1.Gateway:
			m.classic = append(m.classic, o)
		case *gatewayv1.Gateway:
			m.gateways = append(m.gateways, o)
		case *gatewayv1.ListenerSet:
			m.sets = append(m.sets, o)
		case *gatewayv1.HTTPRoute:
			m.routes = append(m.routes, httpRoute(o))
		case *gatewayv1.GRPCRoute:
			m.routes = append(m.routes, grpcRoute(o))
		case *gatewayv1.TCPRoute:
			m.routes = append(m.routes, tcpRoute(o))
		case *gatewayv1.TLSRoute:
			m.routes = append(m.routes, tlsRoute(o))
		case *securityv1.PeerAuthentication:
			m.peers = append(m.peers, o)
		case *securityv1.AuthorizationPolicy:
			m.policies = append(m.policies, o)
		case *policyapi.RateLimitPolicy:
			m.limits = append(m.limits, o)
		}
	}
	slices.SortFunc(m.services, func(a, b *corev1.Service) int { return compare(a, b) })
	slices.SortFunc(m.virtual, func(a, b *networkingv1.VirtualService) int { return compare(a, b) })
	slices.SortFunc(m.rules, func(a, b *networkingv1.DestinationRule) int { return compare(a, b) })
	slices.SortFunc(m.gateways, func(a, b *gatewayv1.Gateway) int { return compare(a, b) })
	slices.SortFunc(m.routes, func(a, b route) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name), cmp.Compare(a.kind, b.kind))
	})
	return m, nil
}

func compare(a, b kube.Object) int {
	return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
}

// printer writes lines, and remembers that it could not.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(indent int, format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, "%s%s\n", strings.Repeat("   ", indent), fmt.Sprintf(format, args...))
	}
}

func (p *printer) rule() { p.line(0, line) }

func (m *Mesh) pod(namespace, name string) *corev1.Pod {
	i := slices.IndexFunc(m.pods, func(p *corev1.Pod) bool { return p.Namespace == namespace && p.Name == name })
	if i < 0 {
		return nil
	}
	return m.pods[i]
}

func (m *Mesh) service(namespace, name string) *corev1.Service {
	i := slices.IndexFunc(m.services, func(s *corev1.Service) bool { return s.Namespace == namespace && s.Name == name })
	if i < 0 {
		return nil
	}
	return m.services[i]
}

// workload is what proxies know of a pod; nil for one that has no address.
func (m *Mesh) workload(pod *corev1.Pod) *ambient.Workload {
	uid := m.control.Settings().ClusterID + "//Pod/" + pod.Namespace + "/" + pod.Name
	for _, w := range m.control.Workloads() {
		if w.Key() == uid {
			return w
		}
	}
	return nil
}

// known is what proxies know of a service; nil for one that the mesh leaves to DNS.
func (m *Mesh) known(s *corev1.Service) *ambient.Service {
	key := s.Namespace + "/" + m.control.Settings().Hostname(s.Namespace, s.Name)
	for _, one := range m.control.Services() {
		if one.Key() == key {
			return one
		}
	}
	return nil
}

// selects tells whether a service's pods are such as one.
func selects(s *corev1.Service, pod *corev1.Pod) bool {
	return s.Namespace == pod.Namespace && len(s.Spec.Selector) > 0 && within(s.Spec.Selector, pod.Labels)
}

// within tells whether labels are among others.
func within(wanted, labels map[string]string) bool {
	for key, value := range wanted {
		if labels[key] != value {
			return false
		}
	}
	return true
}

func ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
