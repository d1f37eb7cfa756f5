package l4

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// Defaults that the control plane omits on the wire.
const (
	DefaultTrustDomain    = "cluster.local"
	DefaultServiceAccount = "default"
	DefaultCluster        = "Kubernetes"
)

// HBONEPort is where a workload's proxy accepts tunnels.
const HBONEPort = 15008

// NetworkAddress is an address in a named network; the name is empty in a single-network mesh.
type NetworkAddress struct {
	Network string
	IP      netip.Addr
}

// String is the lookup key "network/ip".
func (a NetworkAddress) String() string { return a.Network + "/" + a.IP.String() }

// NetworkPrefix is a range of addresses in a named network.
type NetworkPrefix struct {
	Network string
	Prefix  netip.Prefix
}

// String is the lookup key "network/ip/length".
func (p NetworkPrefix) String() string { return p.Network + "/" + p.Prefix.String() }

// ServiceKey names a service.
type ServiceKey struct{ Namespace, Hostname string }

// String is "namespace/hostname", the resource's name.
func (k ServiceKey) String() string { return k.Namespace + "/" + k.Hostname }

// ParseServiceKey reads "namespace/hostname".
func ParseServiceKey(s string) (ServiceKey, bool) {
	namespace, hostname, ok := strings.Cut(s, "/")
	if !ok || namespace == "" || hostname == "" || strings.Contains(hostname, "/") {
		return ServiceKey{}, false
	}
	return ServiceKey{namespace, hostname}, true
}

// Gateway refers to a waypoint or network gateway, by host name or by address: exactly one is set.
type Gateway struct {
	Service   ServiceKey     // zero when by address
	Address   NetworkAddress // zero when by host name
	HBONEPort uint16
}

// String is "namespace/hostname" or "network/ip".
func (g Gateway) String() string {
	if g.Service != (ServiceKey{}) {
		return g.Service.String()
	}
	return g.Address.String()
}

// Port maps a service's port to a workload's. Target 0 is a port known only by name: the endpoint's own map has it.
type Port struct {
	Service, Target uint16
	Protocol        workload.AppProtocol
}

// ports is sorted by service port.
type ports []Port

func (p ports) target(service uint16) (uint16, bool) {
	i, ok := slices.BinarySearchFunc(p, service, func(e Port, t uint16) int { return int(e.Service) - int(t) })
	if !ok {
		return 0, false
	}
	return p[i].Target, true
}

// Backing says that a workload is an endpoint of a service, and with which ports.
type Backing struct {
	Service ServiceKey
	Ports   []Port // sorted by service port
}

// Locality places a workload.
type Locality struct{ Region, Zone, Subzone string }

// ApplicationTunnel says how the application itself wants tunnelled connections.
type ApplicationTunnel struct {
	Protocol workload.ApplicationTunnel_Protocol
	Port     uint16
}

// Workload is one endpoint: a pod, a virtual machine or an external address. It is immutable.
type Workload struct {
	UID, Name, Namespace             string
	Addresses                        []netip.Addr // in the resource's order
	Network                          string
	HBONE                            bool // speaks the tunnel protocol; else plain TCP
	NativeTunnel                     bool
	TrustDomain, ServiceAccount      string // defaults filled in
	Waypoint, NetworkGateway         *Gateway
	Node                             string
	CanonicalName, CanonicalRevision string
	Type                             workload.WorkloadType
	WorkloadName                     string
	Policies                         []string // "namespace/name" of the selector policies, in the resource's order
	Healthy                          bool
	ClusterID                        string    // default filled in
	Hostname                         string    // resolved by DNS per connection when there is no address
	Services                         []Backing // sorted by service
	AppTunnel                        *ApplicationTunnel
	Locality                         Locality
	HostNetwork                      bool
	Capacity                         uint32 // relative weight; 1 when the resource has none
}

// Identity is the workload's SPIFFE id.
func (w *Workload) Identity() spiffe.ID {
	return spiffe.ID{TrustDomain: w.TrustDomain, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount}
}

// HasAddress reports whether ip is one of the workload's.
func (w *Workload) HasAddress(ip netip.Addr) bool { return slices.Contains(w.Addresses, ip) }

// Backs returns how w backs the service, or nil.
func (w *Workload) Backs(key ServiceKey) *Backing {
	i, ok := slices.BinarySearchFunc(w.Services, key, func(b Backing, k ServiceKey) int { return compareServiceKey(b.Service, k) })
	if !ok {
		return nil
	}
	return &w.Services[i]
}

func compareServiceKey(a, b ServiceKey) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Hostname, b.Hostname)
}

// parseWorkload validates and compiles a resource. Its error is the reason sent to the control plane.
func parseWorkload(p *workload.Workload) (*Workload, error) {
	if p.GetUid() == "" {
		return nil, fmt.Errorf("workload has no uid")
	}
	w := &Workload{
		UID: p.GetUid(), Name: p.GetName(), Namespace: p.GetNamespace(), Network: p.GetNetwork(),
		NativeTunnel: p.GetNativeTunnel(), TrustDomain: orDefault(p.GetTrustDomain(), DefaultTrustDomain),
		ServiceAccount: orDefault(p.GetServiceAccount(), DefaultServiceAccount), Node: p.GetNode(),
		CanonicalName: p.GetCanonicalName(), CanonicalRevision: p.GetCanonicalRevision(), Type: p.GetWorkloadType(),
		WorkloadName: p.GetWorkloadName(), Policies: slices.Clone(p.GetAuthorizationPolicies()),
		Healthy: p.GetStatus() == workload.WorkloadStatus_HEALTHY, ClusterID: orDefault(p.GetClusterId(), DefaultCluster),
		Hostname: p.GetHostname(), HostNetwork: p.GetNetworkMode() == workload.NetworkMode_HOST_NETWORK, Capacity: 1,
		Locality: Locality{p.GetLocality().GetRegion(), p.GetLocality().GetZone(), p.GetLocality().GetSubzone()},
	}
	if p.GetCapacity() != nil {
		w.Capacity = p.GetCapacity().GetValue()
	}
	switch p.GetTunnelProtocol() {
	case workload.TunnelProtocol_NONE:
	case workload.TunnelProtocol_HBONE:
		w.HBONE = true
	default:
		return nil, fmt.Errorf("tunnel protocol %v is not supported", p.GetTunnelProtocol())
	}
	for _, raw := range p.GetAddresses() {
		ip, err := parseIP(raw)
		if err != nil {
			return nil, err
		}
		w.Addresses = append(w.Addresses, ip)
	}
	var err error
	if w.Waypoint, err = parseGateway("waypoint", p.GetWaypoint()); err != nil {
		return nil, err
	}
	if w.NetworkGateway, err = parseGateway("network gateway", p.GetNetworkGateway()); err != nil {
		return nil, err
	}
	if t := p.GetApplicationTunnel(); t != nil {
		port, err := parsePort("application tunnel", t.GetPort())
		if err != nil {
			return nil, err
		}
		w.AppTunnel = &ApplicationTunnel{Protocol: t.GetProtocol(), Port: port}
	}
	w.Services, err = parseBackings(p.GetServices())
	return w, err
}

func parseBackings(services map[string]*workload.PortList) ([]Backing, error) {
	backings := make([]Backing, 0, len(services))
	for name, list := range services {
		key, ok := ParseServiceKey(name)
		if !ok {
			return nil, fmt.Errorf("service %q is not namespace/hostname", name)
		}
		parsed, err := parsePorts(list.GetPorts())
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", name, err)
		}
		backings = append(backings, Backing{Service: key, Ports: parsed})
	}
	slices.SortFunc(backings, func(a, b Backing) int { return compareServiceKey(a.Service, b.Service) })
	return backings, nil
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}
