package kube

import (
	"fmt"
	"net/netip"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
)

func (c *checker) serviceEntry(o *networkingv1.ServiceEntry) {
	spec := &o.Spec
	if len(spec.GetHosts()) == 0 {
		c.bad("spec.hosts", "at least one host is required")
	}
	wildcard := false
	for i, host := range spec.GetHosts() {
		c.host(fmt.Sprintf("spec.hosts[%d]", i), host)
		wildcard = wildcard || strings.HasPrefix(host, "*")
	}
	ranges := false
	for i, address := range spec.GetAddresses() {
		c.block(fmt.Sprintf("spec.addresses[%d]", i), address)
		if prefix, err := netip.ParsePrefix(address); err == nil && !prefix.IsSingleIP() {
			ranges = true
		}
	}
	c.serviceEntryPorts(spec)
	if spec.GetWorkloadSelector() != nil && len(spec.GetEndpoints()) > 0 {
		c.bad("spec", "only one of workloadSelector and endpoints can be set")
	}
	c.serviceEntryResolution(spec, wildcard, ranges)
	for i, endpoint := range spec.GetEndpoints() {
		field := fmt.Sprintf("spec.endpoints[%d]", i)
		c.endpoint(field, endpoint)
		if _, err := netip.ParseAddr(endpoint.GetAddress()); err != nil && spec.GetResolution() == networkingapi.ServiceEntry_STATIC && endpoint.GetAddress() != "" && !strings.HasPrefix(endpoint.GetAddress(), "unix://") {
			c.bad(field+".address", "%q is not an IP address, as resolution STATIC needs", endpoint.GetAddress())
		}
	}
}

func (c *checker) serviceEntryPorts(spec *networkingapi.ServiceEntry) {
	if len(spec.GetPorts()) == 0 {
		c.bad("spec.ports", "at least one port is required")
	}
	names, numbers := map[string]bool{}, map[uint32]bool{}
	for i, p := range spec.GetPorts() {
		field := fmt.Sprintf("spec.ports[%d]", i)
		c.port(field+".number", p.GetNumber())
		if p.GetTargetPort() != 0 {
			c.port(field+".targetPort", p.GetTargetPort())
		}
		if p.GetName() == "" {
			c.bad(field+".name", "a name is required")
		}
		if names[p.GetName()] {
			c.bad(field+".name", "%q is used twice", p.GetName())
		}
		if numbers[p.GetNumber()] {
			c.bad(field+".number", "%d is used twice", p.GetNumber())
		}
		names[p.GetName()], numbers[p.GetNumber()] = true, true
	}
}

func (c *checker) serviceEntryResolution(spec *networkingapi.ServiceEntry, wildcard, ranges bool) {
	endpoints := len(spec.GetEndpoints()) > 0
	switch spec.GetResolution() {
	case networkingapi.ServiceEntry_NONE:
		if endpoints {
			c.bad("spec.endpoints", "resolution NONE goes to the address the client asked for: no endpoints are allowed")
		}
	case networkingapi.ServiceEntry_STATIC:
		if !endpoints && spec.GetWorkloadSelector() == nil {
			c.warn("spec.endpoints", "resolution STATIC without endpoints or workloadSelector leads nowhere")
		}
	case networkingapi.ServiceEntry_DNS, networkingapi.ServiceEntry_DNS_ROUND_ROBIN:
		if wildcard && !endpoints {
			c.bad("spec.hosts", "a wildcard host cannot be resolved by DNS: give endpoints, or use resolution NONE or DYNAMIC_DNS")
		}
		if spec.GetResolution() == networkingapi.ServiceEntry_DNS_ROUND_ROBIN && len(spec.GetEndpoints()) > 1 {
			c.bad("spec.endpoints", "resolution DNS_ROUND_ROBIN takes one endpoint")
		}
	case networkingapi.ServiceEntry_DYNAMIC_DNS:
		if !wildcard {
			c.bad("spec.hosts", "resolution DYNAMIC_DNS needs a wildcard host")
		}
		if endpoints || spec.GetWorkloadSelector() != nil {
			c.bad("spec.endpoints", "resolution DYNAMIC_DNS takes neither endpoints nor workloadSelector")
		}
		if spec.GetLocation() != networkingapi.ServiceEntry_MESH_EXTERNAL {
			c.bad("spec.location", "resolution DYNAMIC_DNS needs MESH_EXTERNAL")
		}
	default:
		c.bad("spec.resolution", "%d is not a resolution", spec.GetResolution())
	}
	if ranges && spec.GetResolution() != networkingapi.ServiceEntry_NONE && spec.GetResolution() != networkingapi.ServiceEntry_STATIC {
		c.bad("spec.addresses", "CIDR blocks need resolution NONE or STATIC")
	}
}

func (c *checker) workloadEntry(spec *networkingapi.WorkloadEntry, field string) {
	c.endpoint(field, spec)
}

// endpoint checks what WorkloadEntries and the endpoints of ServiceEntries have in common.
func (c *checker) endpoint(field string, spec *networkingapi.WorkloadEntry) {
	c.labels(field+".labels", spec.GetLabels())
	for name, port := range spec.GetPorts() {
		c.port(field+".ports."+name, port)
	}
	address := spec.GetAddress()
	switch {
	case address == "":
		if spec.GetNetwork() == "" {
			c.bad(field+".address", "an address is required, or a network whose gateway leads there")
		}
	case strings.HasPrefix(address, "unix://"):
		if len(spec.GetPorts()) > 0 {
			c.bad(field+".ports", "a unix socket has no ports")
		}
	default:
		if _, err := netip.ParseAddr(address); err != nil {
			c.host(field+".address", address)
		}
	}
}
