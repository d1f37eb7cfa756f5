package l4

import (
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/authz"
)

// The resource types that make up a State.
const (
	AddressType       = "type.googleapis.com/istio.workload.Address"
	AuthorizationType = "type.googleapis.com/istio.security.Authorization"
)

// Resource is one discovery resource, still encoded.
type Resource struct {
	Name string
	Any  *anypb.Any
}

// Rejection says why a resource was not taken. The last good version of it stays in force.
type Rejection struct{ Name, Reason string }

// Builder makes the next State from the last one and a batch of changes, and publishes it. It is the only writer of its
// Store. Its cost depends on the batch, not on the size of the State.
type Builder struct {
	store *Store
	mu    sync.Mutex // serialises batches, which may come from one goroutine per type
}

// NewBuilder writes to store.
func NewBuilder(store *Store) *Builder { return &Builder{store: store} }

// ApplyAddresses takes a batch of istio.workload.Address resources. Removals are applied first.
func (b *Builder) ApplyAddresses(updated []Resource, removed []string) []Rejection {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.draft()
	for _, name := range removed {
		d.removeAddress(name)
	}
	var rejected []Rejection
	for _, r := range updated {
		var address workload.Address
		if err := decode(r, AddressType, &address); err != nil {
			rejected = append(rejected, Rejection{r.Name, err.Error()})
			continue
		}
		if err := d.putAddress(&address); err != nil {
			rejected = append(rejected, Rejection{r.Name, err.Error()})
		}
	}
	b.store.publish(d.next)
	return rejected
}

// ApplyPolicies takes a batch of istio.security.Authorization resources. Removals are applied first.
func (b *Builder) ApplyPolicies(updated []Resource, removed []string) []Rejection {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.draft()
	d.next.policyGen++
	for _, name := range removed {
		d.removePolicy(name)
	}
	var rejected []Rejection
	for _, r := range updated {
		var p security.Authorization
		if err := decode(r, AuthorizationType, &p); err != nil {
			rejected = append(rejected, Rejection{r.Name, err.Error()})
			continue
		}
		policy, err := authz.Compile(&p)
		if err != nil {
			rejected = append(rejected, Rejection{r.Name, err.Error()})
			continue
		}
		d.putPolicy(policy)
	}
	b.store.publish(d.next)
	return rejected
}

// draft starts the next State as a copy of the current one: a few words, the trees are shared.
func (b *Builder) draft() *draft {
	next := *b.store.Load()
	return &draft{next: &next, by: &edit{}}
}

// draft is a State not yet published, owned by one Builder call.
type draft struct {
	next *State
	by   *edit
}

func decode(r Resource, typeURL string, into proto.Message) error {
	if got := r.Any.GetTypeUrl(); got != typeURL {
		return errUnexpectedType(got)
	}
	return proto.Unmarshal(r.Any.GetValue(), into)
}

func (d *draft) putAddress(address *workload.Address) error {
	switch t := address.GetType().(type) {
	case *workload.Address_Workload:
		w, err := parseWorkload(t.Workload)
		if err != nil {
			return err
		}
		d.putWorkload(w)
	case *workload.Address_Service:
		s, err := parseService(t.Service)
		if err != nil {
			return err
		}
		d.putService(s)
	default:
		return errEmptyAddress
	}
	return nil
}

// removeAddress takes out the workload or else the service of a name.
func (d *draft) removeAddress(name string) {
	if w := d.next.Workload(name); w != nil {
		d.removeWorkload(w)
		return
	}
	if key, ok := ParseServiceKey(name); ok {
		if s := d.next.Service(key); s != nil {
			d.removeService(s)
		}
	}
}

func (d *draft) putWorkload(w *Workload) {
	n := d.next
	if old := n.Workload(w.UID); old != nil {
		d.unindexWorkload(old, w)
	}
	n.workloads.set(strings.Compare, d.by, w.UID, w)
	if !w.HostNetwork {
		for _, ip := range w.Addresses {
			insert(&n.byIP, compareNetworkAddress, d.by, NetworkAddress{w.Network, ip}, w, compareByPreference)
		}
	}
	insert(&n.byName, comparePodName, d.by, podName{w.Namespace, w.Name}, w, compareUID)
	for _, backing := range w.Services {
		n.endpoints.set(compareServiceKey, d.by, backing.Service, n.Endpoints(backing.Service).with(d.by, w))
	}
}

func (d *draft) removeWorkload(w *Workload) {
	d.unindexWorkload(w, nil)
	d.next.workloads.remove(strings.Compare, d.by, w.UID)
}

// unindexWorkload takes old out of the indexes. Endpoint sets that replacement stays in are left alone.
func (d *draft) unindexWorkload(old, replacement *Workload) {
	n := d.next
	for _, ip := range old.Addresses {
		withdraw(&n.byIP, compareNetworkAddress, d.by, NetworkAddress{old.Network, ip}, old)
	}
	withdraw(&n.byName, comparePodName, d.by, podName{old.Namespace, old.Name}, old)
	for _, backing := range old.Services {
		if replacement != nil && replacement.Backs(backing.Service) != nil {
			continue
		}
		left := n.Endpoints(backing.Service).without(d.by, old.UID)
		if left.Len() == 0 {
			n.endpoints.remove(compareServiceKey, d.by, backing.Service)
		} else {
			n.endpoints.set(compareServiceKey, d.by, backing.Service, left)
		}
	}
}

func (d *draft) putService(s *Service) {
	n := d.next
	if old := n.Service(s.ServiceKey); old != nil {
		d.removeService(old)
	}
	n.services.set(compareServiceKey, d.by, s.ServiceKey, s)
	insert(&n.byHost, strings.Compare, d.by, s.Hostname, s, compareByKey)
	for _, vip := range s.VIPs {
		insert(&n.byVIP, compareNetworkAddress, d.by, vip, s, compareByKey)
	}
	for _, cidr := range s.CIDRs {
		insert(&n.byCIDR, compareNetworkPrefix, d.by, cidr, s, compareByKey)
		n.cidrBits = withBits(n.cidrBits, cidr.Prefix, 1)
	}
}

func (d *draft) removeService(s *Service) {
	n := d.next
	n.services.remove(compareServiceKey, d.by, s.ServiceKey)
	withdraw(&n.byHost, strings.Compare, d.by, s.Hostname, s)
	for _, vip := range s.VIPs {
		withdraw(&n.byVIP, compareNetworkAddress, d.by, vip, s)
	}
	for _, cidr := range s.CIDRs {
		withdraw(&n.byCIDR, compareNetworkPrefix, d.by, cidr, s)
		n.cidrBits = withBits(n.cidrBits, cidr.Prefix, -1)
	}
}

func (d *draft) putPolicy(p *authz.Policy) {
	d.removePolicy(p.Key())
	d.next.policies.set(strings.Compare, d.by, p.Key(), p)
	if scope, ok := scopeOf(p); ok {
		insert(&d.next.inScope, comparePolicyScope, d.by, scope, p, comparePolicyKey)
	}
}

func (d *draft) removePolicy(key string) {
	old := d.next.Policy(key)
	if old == nil {
		return
	}
	d.next.policies.remove(strings.Compare, d.by, key)
	if scope, ok := scopeOf(old); ok {
		withdraw(&d.next.inScope, comparePolicyScope, d.by, scope, old)
	}
}

// scopeOf is where a policy is looked for; selector policies are looked up by name instead.
func scopeOf(p *authz.Policy) (policyScope, bool) {
	switch p.Scope() {
	case security.Scope_GLOBAL:
		return "", true
	case security.Scope_NAMESPACE:
		return policyScope(p.Proto().GetNamespace()), true
	}
	return "", false
}

// insert adds v to a key's sorted list, which is copied: readers may hold the old one.
func insert[K any, V any](t *tree[K, []*V], compare func(a, b K) int, by *edit, key K, v *V, order func(a, b *V) int) {
	list, _ := t.get(compare, key)
	if slices.Contains(list, v) {
		return
	}
	at, _ := slices.BinarySearchFunc(list, v, order)
	next := make([]*V, 0, len(list)+1)
	next = append(append(append(next, list[:at]...), v), list[at:]...)
	t.set(compare, by, key, next)
}

// withdraw takes v out of a key's list, and the key with its last value.
func withdraw[K any, V any](t *tree[K, []*V], compare func(a, b K) int, by *edit, key K, v *V) {
	list, _ := t.get(compare, key)
	at := slices.Index(list, v)
	switch {
	case at < 0:
	case len(list) == 1:
		t.remove(compare, by, key)
	default:
		t.set(compare, by, key, append(slices.Clone(list[:at]), list[at+1:]...))
	}
}

// compareByPreference orders workloads of one address: pods first, then HBONE, then by uid.
func compareByPreference(a, b *Workload) int {
	rank := func(w *Workload) int {
		r := 0
		if !strings.Contains(w.UID, "//Pod/") {
			r += 2
		}
		if !w.HBONE {
			r++
		}
		return r
	}
	if c := rank(a) - rank(b); c != 0 {
		return c
	}
	return strings.Compare(a.UID, b.UID)
}

func compareUID(a, b *Workload) int { return strings.Compare(a.UID, b.UID) }

func compareByKey(a, b *Service) int { return compareServiceKey(a.ServiceKey, b.ServiceKey) }

func comparePolicyKey(a, b *authz.Policy) int { return strings.Compare(a.Key(), b.Key()) }
