package analysis

import (
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
)

// Host is a name under which something can be called.
type Host struct {
	// Name is the whole name; it may begin with "*.".
	Name      string
	Namespace string
	Ports     []Port
	// Selector of the workloads behind it, empty for none.
	Selector map[string]string
	// Labels of the object.
	Labels   map[string]string
	Resource *Resource
	// Service is nil for a host of a ServiceEntry, Entry for a Service.
	Service *corev1.Service
	Entry   *networkingv1.ServiceEntry

	exportTo []string
}

// Port of a host.
type Port struct {
	Number   uint32
	Name     string
	Protocol Protocol
}

func (s *Snapshot) indexHosts() {
	s.hosts = map[string][]*Host{}
	for r, svc := range All[*corev1.Service](s) {
		h := &Host{
			Name: s.Ambient.Hostname(svc.Namespace, svc.Name), Namespace: svc.Namespace, Selector: svc.Spec.Selector, Labels: svc.Labels,
			Resource: r, Service: svc, exportTo: splitList(svc.Annotations["networking.istio.io/exportTo"]),
		}
		for _, p := range svc.Spec.Ports {
			h.Ports = append(h.Ports, Port{uint32(p.Port), p.Name, ServicePort(p)})
		}
		if len(h.exportTo) == 0 {
			h.exportTo = s.Mesh.GetDefaultServiceExportTo()
		}
		s.hosts[h.Name] = append(s.hosts[h.Name], h)
	}
	for r, se := range All[*networkingv1.ServiceEntry](s) {
		applied := s.Visibility(se)
		if applied == ambient.VisibleToNone {
			continue
		}
		for _, name := range se.Spec.GetHosts() {
			h := &Host{
				Name: name, Namespace: se.Namespace, Selector: se.Spec.GetWorkloadSelector().GetLabels(), Labels: se.Labels, Resource: r, Entry: se,
				exportTo: se.Spec.GetExportTo(),
			}
			if applied == ambient.VisibleToNamespace && s.Ambient.Visibility.EveryProxy() { // otherwise gateways know it everywhere
				h.exportTo = []string{"."}
			}
			for _, p := range se.Spec.GetPorts() {
				h.Ports = append(h.Ports, Port{p.GetNumber(), p.GetName(), NamedProtocol(p.GetProtocol())})
			}
			s.hosts[name] = append(s.hosts[name], h)
		}
	}
}

func splitList(text string) []string {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// FullHost returns the whole name of what an object of a namespace calls a host.
func FullHost(host, namespace string) string {
	if host == "" || host == "*" || strings.Contains(host, ".") {
		return host
	}
	return host + "." + namespace + ".svc." + domain
}

// VisibleTo tells whether what is exported to a list can be seen from a namespace.
func VisibleTo(exportTo []string, own, from string) bool {
	if len(exportTo) == 0 {
		return true
	}
	return slices.ContainsFunc(exportTo, func(to string) bool {
		return to == "*" || to == "." && own == from || to == from
	})
}

// Host returns what a name means for objects of a namespace: its own, one that others export, or the wildcard that covers it; nil when
// there is none.
func (s *Snapshot) Host(host, from string) *Host {
	name := FullHost(host, from)
	if h := visible(s.hosts[name], from); h != nil {
		return h
	}
	for suffix := strings.TrimPrefix(name, "*."); ; {
		if h := visible(s.hosts["*."+suffix], from); h != nil {
			return h
		}
		_, rest, ok := strings.Cut(suffix, ".")
		if !ok {
			return nil
		}
		suffix = rest
	}
}

// Covered returns whether a name with a wildcard covers some host that objects of a namespace see.
func (s *Snapshot) Covered(host, from string) bool {
	suffix := strings.TrimPrefix(host, "*")
	for name, list := range s.hosts {
		if strings.HasSuffix(name, suffix) && visible(list, from) != nil {
			return true
		}
	}
	return false
}

// visible prefers what is in the namespace itself.
func visible(list []*Host, from string) *Host {
	var found *Host
	for _, h := range list {
		if VisibleTo(h.exportTo, h.Namespace, from) && (found == nil || h.Namespace == from && found.Namespace != from) {
			found = h
		}
	}
	return found
}

// Port returns the port of a number, or nil.
func (h *Host) Port(number uint32) *Port {
	for i := range h.Ports {
		if h.Ports[i].Number == number {
			return &h.Ports[i]
		}
	}
	return nil
}

// Binding is what became of the waypoint that the host's labels, or its namespace's, ask for.
func (s *Snapshot) Binding(h *Host) ambient.Binding {
	if h.Entry != nil {
		return s.BindEntry(h.Entry)
	}
	return s.Bind(h.Labels, h.Namespace, "service")
}

// Visibility is who may know of a ServiceEntry.
func (s *Snapshot) Visibility(se *networkingv1.ServiceEntry) ambient.Visibility {
	ns, _, _ := Find[*corev1.Namespace](s, "", se.Namespace)
	return s.Ambient.Visibility.Of(se.Namespace, ns)
}
