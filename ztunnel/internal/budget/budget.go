// Package budget shares what a node has, connections, memory and turns at the processors, among its workloads, and tells whose the processor time was.
//
// Connections and memory are shared alike: a workload may have as much as is left free. One that takes all it can get thus has half, two have a
// third each, and there is always something left for the next one, without anybody knowing beforehand how many there will be.
package budget

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// ConnectionCost is what an open connection is charged as memory: a little more than an idle one takes (docs/benchmarks.md).
const ConnectionCost = 16 << 10

// filesPerConnection are the descriptors of a connection: its two ends, and one for its share of a tunnel or of a pipe.
const filesPerConnection = 3

// Limits of a node. Zero is no limit.
type Limits struct {
	// Connections that may be open at once, handshakes that are under way included.
	Connections int64
	// PerWorkload is how many of them one workload may have, whatever is free.
	PerWorkload int64
	// Buffers is how many bytes may wait for receivers that lag.
	Buffers int64
	// Turns at the processors go round among the workloads; nil is as many as anybody wants.
	Turns *netx.Turns
}

// Share divides what a process may use: a half of the memory, in bytes, is for connections, the other for buffers. Files is how many
// descriptors it may have. Zero is no limit.
func Share(memory, files int64) Limits {
	l := Limits{Buffers: memory / 2, Connections: memory / 2 / ConnectionCost}
	if most := files / filesPerConnection; files > 0 && (l.Connections == 0 || most < l.Connections) {
		l.Connections = most
	}
	return l
}

// Node is what all workloads share. Safe for concurrent use.
type Node struct {
	limits Limits

	connections, buffers atomic.Int64

	mu        sync.Mutex // guards the rest, and what its members say it does
	workloads map[Name]*Account
	ledger    ledger
}

// Name of a workload's pod.
type Name struct{ Namespace, Pod string }

// NewNode returns a node without workloads.
func NewNode(l Limits) *Node { return &Node{limits: l, workloads: map[Name]*Account{}} }

// Open returns the account of a workload, which Close gives back. Two who ask for the same have one in common: a pod may be there twice
// for a while, when it is replaced by one of its name.
func (n *Node) Open(name Name) *Account {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := n.workloads[name]
	if a == nil {
		a = &Account{node: n, name: name}
		if t := n.limits.Turns; t != nil {
			a.turns = t.Taker()
		}
		n.workloads[name] = a
	}
	a.holders++
	return a
}

// accounts lists the workloads in the order of their names, with the processor time of each, and of all that is none's.
func (n *Node) accounts() (all []*Account, cpu []time.Duration, other time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	all = slices.SortedFunc(maps.Values(n.workloads), func(a, b *Account) int { return a.name.compare(b.name) })
	for _, a := range all {
		cpu = append(cpu, a.cpu)
	}
	return all, cpu, n.ledger.other
}

// Account is what one workload has of its node. Safe for concurrent use. It is an [hbone.Budget].
type Account struct {
	node    *Node
	name    Name
	turns   *netx.Taker // nil without limits
	holders int         // guarded by Node.mu

	cpu     time.Duration // guarded by Node.mu
	settled time.Duration // that much of work is in cpu; guarded by Node.mu
	work    atomic.Int64  // estimated, in nanoseconds

	connections, buffers atomic.Int64
	bytes                atomic.Uint64 // that connections have carried
	shed                 [reasons]atomic.Uint64
	told                 [reasons]telemetry.Sparing
}

var _ hbone.Budget = (*Account)(nil)

// Close gives the account back. The last one takes what is still charged from the node.
func (a *Account) Close() {
	n := a.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if a.holders--; a.holders > 0 {
		return
	}
	if n.workloads[a.name] == a {
		delete(n.workloads, a.name)
		n.ledger.departed += a.unsettled()
	}
	n.connections.Add(-a.connections.Swap(0))
	n.buffers.Add(-a.buffers.Swap(0))
}

// Admit takes one more connection, which Leave gives back. False says that there is none left for this workload.
func (a *Account) Admit() bool {
	mine, all := a.Enter(), a.node.connections.Load()
	l := a.node.limits
	if l.PerWorkload > 0 && mine > l.PerWorkload || l.Connections > 0 && mine > l.Connections-all {
		a.Leave()
		a.work.Add(int64(refusalCost))
		return false
	}
	a.work.Add(int64(connectionCost))
	return true
}

// Enter is Admit for a connection that is there already, whatever the limits. It returns how many the workload has.
func (a *Account) Enter() int64 {
	a.node.connections.Add(1)
	return a.connections.Add(1)
}

// Leave gives a connection back.
func (a *Account) Leave() {
	a.connections.Add(-1)
	a.node.connections.Add(-1)
}

// Hold implements [hbone.Budget].
func (a *Account) Hold(n int64) {
	a.buffers.Add(n)
	a.node.buffers.Add(n)
}

// Pressure implements [hbone.Budget].
func (a *Account) Pressure() hbone.Pressure {
	limit := a.node.limits.Buffers
	if limit == 0 {
		return hbone.Relaxed
	}
	mine, free := a.buffers.Load(), limit-a.node.buffers.Load()
	switch {
	case mine >= free:
		return hbone.Cut
	case 2*mine >= free:
		return hbone.Slow
	}
	return hbone.Relaxed
}

// Turns implements [hbone.Budget].
func (a *Account) Turns() *netx.Taker { return a.turns }

// Shed counts what was refused or cut, and reports whether to log it, with how many were not since: once in a second for each reason, as
// that is when the machine has other worries.
func (a *Account) Shed(why Reason) (leftOut uint64, log bool) {
	a.shed[why].Add(1)
	return a.told[why].Allow(time.Now())
}

func (n Name) compare(other Name) int {
	switch {
	case n == other:
		return 0
	case n.Namespace < other.Namespace || n.Namespace == other.Namespace && n.Pod < other.Pod:
		return -1
	}
	return 1
}
