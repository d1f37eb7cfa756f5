package l4

import (
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/authz"
)

// State is what the mesh looks like at one moment. It is immutable and safe for any number of readers.
type State struct {
	workloads tree[string, *Workload]            // by uid
	byIP      tree[NetworkAddress, []*Workload]  // best first; no host-network ones
	byName    tree[podName, []*Workload]         // by uid
	services  tree[ServiceKey, *Service]         //
	byVIP     tree[NetworkAddress, []*Service]   // by key
	byCIDR    tree[NetworkPrefix, []*Service]    // by key
	byHost    tree[string, []*Service]           // by key, that is by namespace
	endpoints tree[ServiceKey, *Endpoints]       // also of services that are not known (yet)
	policies  tree[string, *authz.Policy]        // by "namespace/name"
	inScope   tree[policyScope, []*authz.Policy] // the global ones under "", a namespace's under its name; by key
	cidrBits  []cidrBits                         // which prefix lengths occur, longest first
	policyGen uint64                             // rises with every change of policies
	newer     chan struct{}                      // closed when another State is published
}

// podName finds local workloads: a pod's name and namespace.
type podName struct{ namespace, name string }

// policyScope is "" for the whole mesh, else a namespace.
type policyScope string

// cidrBits counts the virtual ranges of one prefix length.
type cidrBits struct {
	bits  int
	v6    bool
	count int
}

// Superseded is closed once a newer State has been published in the Store this one came from.
func (s *State) Superseded() <-chan struct{} { return s.newer }

// PolicyGeneration rises with every change of any policy.
func (s *State) PolicyGeneration() uint64 { return s.policyGen }

// Workload finds a workload by uid.
func (s *State) Workload(uid string) *Workload {
	w, _ := s.workloads.get(strings.Compare, uid)
	return w
}

// WorkloadByIP finds the workload that answers at an address. Of several with one address it is the pod, then one that
// speaks HBONE, then the first by uid. Workloads in the host network are never found by address.
func (s *State) WorkloadByIP(network string, ip netip.Addr) *Workload {
	found, _ := s.byIP.get(compareNetworkAddress, NetworkAddress{network, ip.Unmap()})
	if len(found) == 0 {
		return nil
	}
	return found[0]
}

// WorkloadsNamed lists the workloads of a namespace and name, by uid.
func (s *State) WorkloadsNamed(namespace, name string) []*Workload {
	found, _ := s.byName.get(comparePodName, podName{namespace, name})
	return found
}

// LocalWorkload finds the workload of a pod on a node by name, namespace and service account. An empty node means any.
func (s *State) LocalWorkload(node, namespace, name, serviceAccount string) *Workload {
	for _, w := range s.WorkloadsNamed(namespace, name) {
		if w.ServiceAccount == orDefault(serviceAccount, DefaultServiceAccount) && (node == "" || w.Node == node) {
			return w
		}
	}
	return nil
}

// Workloads yields all workloads by uid.
func (s *State) Workloads() iter.Seq[*Workload] { return values(s.workloads) }

// WorkloadCount is how many there are.
func (s *State) WorkloadCount() int { return s.workloads.size }

// Service finds a service by name.
func (s *State) Service(key ServiceKey) *Service {
	found, _ := s.services.get(compareServiceKey, key)
	return found
}

// Services yields all services by key.
func (s *State) Services() iter.Seq[*Service] { return values(s.services) }

// ServiceCount is how many there are.
func (s *State) ServiceCount() int { return s.services.size }

// ServicesByHostname lists the services of a host name in all namespaces, by namespace. The name is compared exactly.
func (s *State) ServicesByHostname(hostname string) []*Service {
	found, _ := s.byHost.get(strings.Compare, hostname)
	return found
}

// ServiceByVIP finds the service that a client of a namespace reaches at an address: of those visible to it, one with
// exactly this address before one with a range around it; then its own namespace's, the longest range, the canonical one,
// the first by key.
func (s *State) ServiceByVIP(network string, ip netip.Addr, clientNamespace string) *Service {
	ip = ip.Unmap()
	exact, _ := s.byVIP.get(compareNetworkAddress, NetworkAddress{network, ip})
	if best := PreferredService(exact, clientNamespace); best != nil {
		return best
	}
	var longest *Service
	for _, length := range s.cidrBits {
		if length.v6 != ip.Is6() {
			continue
		}
		prefix, err := ip.Prefix(length.bits)
		if err != nil {
			continue
		}
		found, _ := s.byCIDR.get(compareNetworkPrefix, NetworkPrefix{network, prefix})
		best := PreferredService(found, clientNamespace)
		if best != nil && best.Namespace == clientNamespace {
			return best
		}
		if longest == nil {
			longest = best
		}
	}
	return longest
}

// ServicesByVIP lists the services with exactly this address, by key.
func (s *State) ServicesByVIP(network string, ip netip.Addr) []*Service {
	found, _ := s.byVIP.get(compareNetworkAddress, NetworkAddress{network, ip.Unmap()})
	return found
}

// PreferredService picks among services of one name or address: visible to the client's namespace, then of that
// namespace, then canonical, then the first. It is nil when none is visible.
func PreferredService(candidates []*Service, clientNamespace string) *Service {
	var best *Service
	bestRank := -1
	for _, candidate := range candidates {
		if !candidate.VisibleTo(clientNamespace) {
			continue
		}
		rank := 0
		if candidate.Canonical {
			rank = 1
		}
		if candidate.Namespace == clientNamespace {
			rank = 2
		}
		if rank > bestRank {
			best, bestRank = candidate, rank
		}
	}
	return best
}

// Endpoints lists the workloads that back a service, by uid.
func (s *State) Endpoints(key ServiceKey) *Endpoints {
	found, ok := s.endpoints.get(compareServiceKey, key)
	if !ok {
		return &Endpoints{}
	}
	return found
}

// Policy finds a policy by "namespace/name".
func (s *State) Policy(key string) *authz.Policy {
	found, _ := s.policies.get(strings.Compare, key)
	return found
}

// Policies yields all policies by key.
func (s *State) Policies() iter.Seq[*authz.Policy] { return values(s.policies) }

// PoliciesFor gathers what applies to one workload: the mesh's, its namespace's, and those it lists. A listed policy that
// is not known is passed over, as its resource may still be on the way.
func (s *State) PoliciesFor(w *Workload) authz.Set {
	global, _ := s.inScope.get(comparePolicyScope, "")
	var own []*authz.Policy
	for _, key := range w.Policies {
		if p := s.Policy(key); p != nil {
			own = append(own, p)
		}
	}
	var namespace []*authz.Policy
	if w.Namespace != "" {
		namespace, _ = s.inScope.get(comparePolicyScope, policyScope(w.Namespace))
	}
	return authz.Select(global, namespace, own)
}

// values yields a tree's values in key order.
func values[K, V any](t tree[K, V]) iter.Seq[V] {
	return func(yield func(V) bool) {
		t.all(func(_ K, v V) bool { return yield(v) })
	}
}

func compareNetworkAddress(a, b NetworkAddress) int {
	if c := a.IP.Compare(b.IP); c != 0 {
		return c
	}
	return strings.Compare(a.Network, b.Network)
}

func compareNetworkPrefix(a, b NetworkPrefix) int {
	if c := a.Prefix.Addr().Compare(b.Prefix.Addr()); c != 0 {
		return c
	}
	if c := a.Prefix.Bits() - b.Prefix.Bits(); c != 0 {
		return c
	}
	return strings.Compare(a.Network, b.Network)
}

func comparePodName(a, b podName) int {
	if c := strings.Compare(a.namespace, b.namespace); c != 0 {
		return c
	}
	return strings.Compare(a.name, b.name)
}

func comparePolicyScope(a, b policyScope) int { return strings.Compare(string(a), string(b)) }

// withBits returns the lengths with one range of prefix p more or fewer. The argument is not changed.
func withBits(lengths []cidrBits, p netip.Prefix, delta int) []cidrBits {
	v6 := p.Addr().Is6()
	next := slices.Clone(lengths)
	i := slices.IndexFunc(next, func(l cidrBits) bool { return l.bits == p.Bits() && l.v6 == v6 })
	if i < 0 {
		next = append(next, cidrBits{bits: p.Bits(), v6: v6, count: delta})
		slices.SortFunc(next, func(a, b cidrBits) int { return b.bits - a.bits })
		return next
	}
	next[i].count += delta
	if next[i].count == 0 {
		next = slices.Delete(next, i, i+1)
	}
	return next
}
