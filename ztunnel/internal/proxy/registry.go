package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"

	"github.com/isthmus-mesh/isthmus/pkg/authz"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// ConnInfo is one open connection, as config_dump shows it.
type ConnInfo struct {
	Src         netip.AddrPort `json:"src"`
	OriginalDst string         `json:"originalDst"`
	ActualDst   netip.AddrPort `json:"actualDst"`
	Protocol    string         `json:"protocol"` // HBONE or TCP
}

// open is a connection in the registry.
type open struct {
	// immutable
	inbound bool
	check   authz.Conn // inbound only: what policies are asked
	life    *netx.Life
	record  *record // its bytes are reported while the connection lives
	gate    *netx.Gate

	info ConnInfo // guarded by registry.mu once it is in there

	done func() // called at the end of what is carried; set before that, by whoever has the connection carried

	mu                   sync.Mutex  // guards the rest
	downstream, upstream netx.Stream // nil until both are there
}

// connected says what is relayed.
func (o *open) connected(downstream, upstream netx.Stream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.downstream, o.upstream = downstream, upstream
}

// registry knows the open connections of one pod.
type registry struct {
	mu  sync.Mutex // guards set, and the info of its members
	set map[*open]struct{}
}

func newRegistry() *registry { return &registry{set: map[*open]struct{}{}} }

func (r *registry) add(o *open) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set[o] = struct{}{}
}

func (r *registry) remove(o *open) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.set, o)
}

// update says that a connection goes another way than before.
func (r *registry) update(o *open, info ConnInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o.info = info
}

// snapshot returns the open connections in no order.
func (r *registry) snapshot() []*open {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*open, 0, len(r.set))
	for o := range r.set {
		all = append(all, o)
	}
	return all
}

// list returns the connections of one direction, by source.
func (r *registry) list(inbound bool) []ConnInfo {
	list := []ConnInfo{}
	r.mu.Lock()
	for o := range r.set {
		if o.inbound == inbound {
			list = append(list, o.info)
		}
	}
	r.mu.Unlock()
	slices.SortFunc(list, func(a, b ConnInfo) int {
		return cmp.Or(a.Src.Compare(b.Src), cmp.Compare(a.OriginalDst, b.OriginalDst))
	})
	return list
}

// tunnels knows the connections of peers that can be handed over.
type tunnels struct {
	mu  sync.Mutex // guards set
	set map[hbone.Live]struct{}
}

func (t *tunnels) add(l hbone.Live) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.set[l] = struct{}{}
}

func (t *tunnels) remove(l hbone.Live) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.set, l)
}

// list returns those that have not ended.
func (t *tunnels) list() []hbone.Live {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []hbone.Live
	for l := range t.set {
		select {
		case <-l.Done():
		default:
			all = append(all, l)
		}
	}
	return all
}
