package dns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// Client is who asks.
type Client struct{ Namespace, Network string }

// Settings of the resolution that are the same for all clients.
type Settings struct {
	// Domain of the cluster, "cluster.local" by default, without dots at the ends.
	Domain string
	// PreferredNamespace wins among services of one host name when neither the client's namespace nor a canonical one does.
	PreferredNamespace string
	// IPv6 says whether AAAA queries are answered with addresses.
	IPv6 bool
}

// Answer is what the mesh knows about a name.
type Answer struct {
	// Known is false when the mesh has no such host; the query is then somebody else's to answer.
	Known bool
	// CNAME is the name that the addresses belong to when it differs from the one asked for, else "".
	CNAME string
	// Addrs of the family asked for. None: the host exists without such an address.
	Addrs []netip.Addr
}

// Resolve answers a query for the addresses of name (lower case, no trailing dot) of one family. It is pure; the
// addresses are in a fixed order, which the server shuffles.
func (s Settings) Resolve(state *l4.State, client Client, name string, v6 bool) Answer {
	for _, c := range candidates(name, client.Namespace, s.Domain) {
		service, wildcard := s.find(state, client, c.host)
		if service == nil {
			continue
		}
		answer := Answer{Known: true, Addrs: s.addresses(state, client, service, v6)}
		// A wildcard names no host of its own, so there is nothing to point a CNAME at.
		if c.stripped != "" && !wildcard {
			answer.CNAME = c.stripped
		}
		return answer
	}
	return Answer{}
}

// find looks for host exactly, then for the wildcards above it.
func (s Settings) find(state *l4.State, client Client, host string) (service *l4.Service, wildcard bool) {
	if service := s.pick(state.ServicesByHostname(host), client); service != nil {
		return service, false
	}
	for _, above := range wildcards(host) {
		if service := s.pick(state.ServicesByHostname(above), client); service != nil {
			return service, true
		}
	}
	return nil, false
}

// pick chooses among services of one host name: those with a virtual address or of the cluster's own domain, and visible
// to the client; of them the client's namespace's, the canonical one, the preferred namespace's, the first.
func (s Settings) pick(services []*l4.Service, client Client) *l4.Service {
	var best *l4.Service
	bestRank := -1
	for _, service := range services {
		inCluster := strings.HasSuffix(service.Hostname, ".svc."+s.Domain)
		if (len(service.VIPs) == 0 && !inCluster) || !service.VisibleTo(client.Namespace) {
			continue
		}
		rank := 0
		switch {
		case service.Namespace == client.Namespace:
			rank = 3
		case service.Canonical:
			rank = 2
		case s.PreferredNamespace != "" && service.Namespace == s.PreferredNamespace:
			rank = 1
		}
		if rank > bestRank {
			best, bestRank = service, rank
		}
	}
	return best
}

// addresses are the service's virtual ones in the client's network, or else its endpoints' (a headless service).
func (s Settings) addresses(state *l4.State, client Client, service *l4.Service, v6 bool) []netip.Addr {
	if (v6 && !s.IPv6) || !familyServed(service.IPFamilies, v6) {
		return nil
	}
	var out []netip.Addr
	if len(service.VIPs) > 0 {
		for _, vip := range service.VIPs {
			if vip.Network == client.Network && vip.IP.Is6() == v6 {
				out = append(out, vip.IP)
			}
		}
		return out
	}
	for endpoint := range state.Endpoints(service.ServiceKey).All() {
		if endpoint.Network != client.Network || !ready(service, endpoint) {
			continue
		}
		i := slices.IndexFunc(endpoint.Addresses, func(ip netip.Addr) bool { return ip.Is6() == v6 })
		if i >= 0 && !slices.Contains(out, endpoint.Addresses[i]) {
			out = append(out, endpoint.Addresses[i])
		}
	}
	return out
}

func ready(service *l4.Service, endpoint *l4.Workload) bool {
	return endpoint.Healthy || service.HealthPolicy == workload.LoadBalancing_ALLOW_ALL
}

func familyServed(families workload.IPFamilies, v6 bool) bool {
	switch families {
	case workload.IPFamilies_IPV4_ONLY:
		return !v6
	case workload.IPFamilies_IPV6_ONLY:
		return v6
	}
	return true
}
