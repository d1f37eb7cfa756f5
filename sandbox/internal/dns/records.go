// Package dns is the cluster's DNS: the names of Services and pods, and the machine's own resolvers for the rest.
//
// Build is pure; a Server answers in a node's network namespace.
package dns

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// srv is one target of a named port.
type srv struct {
	target string
	port   uint16
}

// Records is what the cluster knows. It is immutable.
type Records struct {
	domain string // "cluster.local."
	addrs  map[string][]netip.Addr
	srvs   map[string][]srv
	cnames map[string]string
	// exists has every name that is known or has known names below it: others do not exist.
	exists map[string]bool
}

// Build makes the records of the Services.
func Build(domain string, services []*corev1.Service, slices []*discoveryv1.EndpointSlice) *Records {
	r := &Records{
		domain: domain + ".", addrs: map[string][]netip.Addr{}, srvs: map[string][]srv{}, cnames: map[string]string{}, exists: map[string]bool{},
	}
	byService := map[string][]*discoveryv1.EndpointSlice{}
	for _, s := range slices {
		key := s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]
		byService[key] = append(byService[key], s)
	}
	r.mark("svc." + r.domain)
	for _, s := range services {
		name := s.Name + "." + s.Namespace + ".svc." + r.domain
		r.mark(name)
		switch {
		case s.Spec.Type == corev1.ServiceTypeExternalName:
			r.cnames[name] = strings.TrimSuffix(s.Spec.ExternalName, ".") + "."
		case s.Spec.ClusterIP == corev1.ClusterIPNone:
			r.headless(name, s, byService[s.Namespace+"/"+s.Name])
		default:
			for _, text := range s.Spec.ClusterIPs {
				r.address(name, text)
			}
			for _, p := range s.Spec.Ports {
				r.service(name, p.Name, string(p.Protocol), srv{name, uint16(p.Port)})
			}
		}
	}
	return r
}

// headless gives the addresses of the endpoints themselves.
func (r *Records) headless(name string, s *corev1.Service, slices []*discoveryv1.EndpointSlice) {
	for _, slice := range slices {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready != nil && !*e.Conditions.Ready && !s.Spec.PublishNotReadyAddresses {
				continue
			}
			for _, text := range e.Addresses {
				r.address(name, text)
				host := strings.NewReplacer(".", "-", ":", "-").Replace(text)
				if e.Hostname != nil {
					host = *e.Hostname
				}
				own := host + "." + name
				r.address(own, text)
				for _, p := range slice.Ports {
					if p.Name != nil && p.Port != nil && p.Protocol != nil {
						r.service(name, *p.Name, string(*p.Protocol), srv{own, uint16(*p.Port)})
					}
				}
			}
		}
	}
}

func (r *Records) address(name, text string) {
	if ip, err := netip.ParseAddr(text); err == nil {
		r.addrs[name] = append(r.addrs[name], ip)
		r.mark(name)
	}
}

func (r *Records) service(name, port, protocol string, target srv) {
	if port == "" {
		return
	}
	key := "_" + port + "._" + strings.ToLower(protocol) + "." + name
	if slices.Contains(r.srvs[key], target) {
		return // an endpoint of two families is one target
	}
	r.srvs[key] = append(r.srvs[key], target)
	r.mark(key)
}

// mark notes that a name exists, and so all names above it.
func (r *Records) mark(name string) {
	for name != "" && !r.exists[name] {
		r.exists[name] = true
		_, name, _ = strings.Cut(name, ".")
	}
}
