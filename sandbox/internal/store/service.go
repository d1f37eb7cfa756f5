package store

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/manifest"
)

// claim is what only one Service can have: an address, or a node port.
type claim struct {
	ip       netip.Addr
	port     int32
	protocol corev1.Protocol
}

func (c claim) String() string {
	if c.port != 0 {
		return fmt.Sprintf("%d/%s", c.port, c.protocol)
	}
	return c.ip.String()
}

// clash refuses a Service that asks for what another one has. As with an API server, whoever came first keeps it.
// The caller holds s.mu.
func (s *Store) clash(svc *corev1.Service) error {
	refuse := func(field string, c claim, holder string) error {
		return &manifest.Error{
			Kind: "Service", Namespace: svc.Namespace, Name: svc.Name, Field: field,
			Reason: fmt.Sprintf("%s is that of %s: choose another, or leave it out", c, holder),
		}
	}
	wanted := map[claim]string{}
	var twice error
	each(svc, func(c claim, field string) {
		if first, ok := wanted[c]; ok && c.port != 0 {
			twice = refuse(field, c, first)
		}
		wanted[c] = field
	})
	if twice != nil {
		return twice
	}
	for key, obj := range s.objects {
		other, ok := obj.(*corev1.Service)
		if !ok || key == KeyOf(svc) {
			continue
		}
		var err error
		each(other, func(c claim, _ string) {
			if field, ok := wanted[c]; ok && err == nil {
				err = refuse(field, c, "Service "+other.Namespace+"/"+other.Name)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// each calls do with all that a Service has or asks for, and the field that says so.
func each(s *corev1.Service, do func(c claim, field string)) {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	address := func(text, field string) {
		if ip, err := netip.ParseAddr(text); err == nil {
			do(claim{ip: ip.Unmap()}, field)
		}
	}
	for i, text := range s.Spec.ClusterIPs {
		address(text, fmt.Sprintf("spec.clusterIPs[%d]", i))
	}
	address(s.Spec.ClusterIP, "spec.clusterIP")
	for i, in := range s.Status.LoadBalancer.Ingress {
		address(in.IP, fmt.Sprintf("status.loadBalancer.ingress[%d].ip", i))
	}
	for i, p := range s.Spec.Ports {
		if p.NodePort == 0 {
			continue
		}
		protocol := p.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		do(claim{port: p.NodePort, protocol: protocol}, fmt.Sprintf("spec.ports[%d].nodePort", i))
	}
}
