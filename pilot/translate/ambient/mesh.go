// Package ambient translates Kubernetes and Istio objects into what an ambient data plane consumes: workloads, services
// and L4 authorization policies. Everything in it is a pure function of its arguments.
package ambient

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

// Names of labels and annotations that decide about translation.
const (
	labelUseWaypoint          = "istio.io/use-waypoint"
	labelUseWaypointNamespace = "istio.io/use-waypoint-namespace"
	labelWaypointFor          = "istio.io/waypoint-for"
	labelIngressUseWaypoint   = "istio.io/ingress-use-waypoint"
	labelFailureMode          = "istio.io/waypoint-failure-mode"
	labelSessionCookie        = "istio.io/persistent-session"
	labelSessionHeader        = "istio.io/persistent-session-header"
	labelGatewayName          = "gateway.networking.k8s.io/gateway-name"
	labelManaged              = "gateway.istio.io/managed"
	labelTLSMode              = "security.istio.io/tlsMode"
	labelTunnel               = "networking.istio.io/tunnel"
	labelNetwork              = "topology.istio.io/network"
	labelLocality             = "istio-locality"
	labelSubzone              = "topology.istio.io/subzone"
	labelRegion               = "topology.kubernetes.io/region"
	labelZone                 = "topology.kubernetes.io/zone"
	labelPodTemplateHash      = "pod-template-hash"
	labelRolloutHash          = "rollouts-pod-template-hash"
	labelCanonicalName        = "service.istio.io/canonical-name"
	labelCanonicalRevision    = "service.istio.io/canonical-revision"
	labelWorkloadName         = "service.istio.io/workload-name"

	annotationServiceAccount      = "gateway.istio.io/service-account"
	annotationRedirection         = "ambient.istio.io/redirection"
	annotationExportTo            = "networking.istio.io/exportTo"
	annotationTrafficDistribution = "networking.istio.io/traffic-distribution"
	annotationInboundBinding      = "ambient.istio.io/waypoint-inbound-binding"
	annotationDryRun              = "istio.io/dry-run"

	managedWaypoint   = "istio.io-mesh-controller"
	none              = "none"
	hbonePort         = 15008
	defaultTrustDoman = "cluster.local"
)

// Mesh is what applies to every object.
type Mesh struct {
	// ClusterID is the first segment of every workload's uid.
	ClusterID string
	// Network of the cluster; empty when there is only one.
	Network string
	// Networks are those of blocks of addresses, the longest prefix first, where the cluster as a whole has none.
	Networks []NetworkBlock
	// TrustDomain of identities, and the other names under which it is known.
	TrustDomain        string
	TrustDomainAliases []string
	// RootNamespace holds the policies that apply to every namespace.
	RootNamespace string
	// Domain is the suffix of Services' hostnames.
	Domain string
	// Visibility says who knows of which ServiceEntries; nil is a mesh that does not speak of it.
	Visibility *EntryVisibility
	// DryRun has ztunnel told of policies of a dry run, which it reports and does not enforce.
	DryRun bool
}

// NetworkBlock says in which network addresses are.
type NetworkBlock struct {
	Prefix  netip.Prefix
	Network string
}

// Equal reports whether translating with either gives the same.
func (m Mesh) Equal(o Mesh) bool {
	same := strings.Join(m.TrustDomainAliases, ",") == strings.Join(o.TrustDomainAliases, ",") && slices.Equal(m.Networks, o.Networks)
	m.TrustDomainAliases, o.TrustDomainAliases = nil, nil
	return same && m.DryRun == o.DryRun && m.Visibility.Equal(o.Visibility) && m.comparable() == o.comparable()
}

func (m Mesh) comparable() [5]string {
	return [...]string{m.ClusterID, m.Network, m.TrustDomain, m.RootNamespace, m.Domain}
}

// wireTrustDomain is empty for the default one, which is not sent.
func (m Mesh) wireTrustDomain() string {
	if m.TrustDomain == defaultTrustDoman {
		return ""
	}
	return m.TrustDomain
}

// networkOf is the network in an object's labels, else the cluster's, else that of the first of its addresses that is in one.
func (m Mesh) networkOf(labels map[string]string, addresses ...netip.Addr) string {
	if n := cmp.Or(labels[labelNetwork], m.Network); n != "" || len(m.Networks) == 0 {
		return n
	}
	for _, a := range addresses {
		for _, b := range m.Networks {
			if b.Prefix.Contains(a.Unmap()) {
				return b.Network
			}
		}
	}
	return ""
}

// Hostname of a Kubernetes Service.
func (m Mesh) Hostname(namespace, name string) string {
	return name + "." + namespace + ".svc." + m.Domain
}

func rawAddresses(ips []netip.Addr) [][]byte {
	out := make([][]byte, 0, len(ips))
	for _, ip := range ips {
		out = append(out, ip.AsSlice())
	}
	return out
}

// networkAddress reads an IP address, or a CIDR block, whose length is then set unless it has one address only.
func networkAddress(network, text string) *workload.NetworkAddress {
	if prefix, err := netip.ParsePrefix(text); err == nil {
		out := &workload.NetworkAddress{Network: network, Address: prefix.Masked().Addr().AsSlice()}
		if !prefix.IsSingleIP() {
			length := uint32(prefix.Bits())
			out.Length = &length
		}
		return out
	}
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return nil
	}
	return &workload.NetworkAddress{Network: network, Address: ip.Unmap().AsSlice()}
}

// selects reports whether all of the selector's labels are there. A nil or empty selector selects nothing.
func selects(selector, labels map[string]string) bool {
	if len(selector) == 0 {
		return false
	}
	for k, v := range selector {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}
