package budget

import (
	"math/bits"
	"time"
)

// Work is what the proxy has done for a workload, in the kinds that cost differently.
type Work struct {
	TunnelBytes uint64 // carried with encryption, either way
	PlainBytes  uint64 // carried without
	Steps       uint64 // reads with their writes: many small ones cost more than few large ones
	Handshakes  uint64 // TLS, finished or not
}

// What the kinds of work cost, as measured where docs/benchmarks.md was: bulk-1 and splice for the bytes, rtt-1 for a step, stream-setup
// for a connection. Only their ratios count, as long as no machine is slower than [mostScale] times that one.
const (
	tunnelBytesCost = 650 * time.Nanosecond // for 1000 of them
	plainBytesCost  = 150 * time.Nanosecond
	stepCost        = 7 * time.Microsecond
	handshakeCost   = 1500 * time.Microsecond
	connectionCost  = 90 * time.Microsecond
	refusalCost     = 20 * time.Microsecond
)

// mostScale is by how much the cost of work may have been estimated too low. What the process has used beyond that was used for something
// else: a node whose one workload says a word in a minute does not make it pay for the configuration of the mesh.
const mostScale = 4

// settleEvery is how often processor time is divided, at most. Open connections report their bytes every 5 s: in less time than two reports
// one workload would pay for what another one has yet to report.
const settleEvery = 10 * time.Second

// cost estimates the processor time that the work took.
func (w Work) cost() time.Duration {
	return time.Duration(w.TunnelBytes)*tunnelBytesCost/1000 + time.Duration(w.PlainBytes)*plainBytesCost/1000 +
		time.Duration(w.Steps)*stepCost + time.Duration(w.Handshakes)*handshakeCost
}

// apportion divides spent in proportion to estimates, of which none gets more than mostScale times itself. What is left is nobody's: shares
// and rest are spent, to the nanosecond. Nothing is negative, and nobody without an estimate has a share.
func apportion(spent time.Duration, estimates []time.Duration) (shares []time.Duration, rest time.Duration) {
	total := time.Duration(0)
	for _, e := range estimates {
		total += e
	}
	divided := min(spent, mostScale*total)
	shares, rest = make([]time.Duration, len(estimates)), spent
	for n, e := range estimates {
		if e > 0 {
			high, low := bits.Mul64(uint64(divided), uint64(e))
			share, _ := bits.Div64(high, low, uint64(total)) // e is not more than total, so there is no overflow
			shares[n] = time.Duration(share)
			rest -= shares[n]
		}
	}
	return shares, rest
}

// ledger is the processor time of the node's workloads. Guarded by Node.mu.
type ledger struct {
	spent    time.Duration // by the process, when it was divided last
	at       time.Time     // then
	other    time.Duration // that is no workload's which is still here
	departed time.Duration // estimate of what workloads that are gone have done since then
}

// settle divides what the process has spent since the last time among those who worked.
func (n *Node) settle(spent time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &n.ledger
	if spent <= l.spent {
		return // it could not be read
	}
	accounts := make([]*Account, 0, len(n.workloads))
	estimates := make([]time.Duration, 0, len(n.workloads)+1)
	for _, a := range n.workloads {
		accounts = append(accounts, a)
		estimates = append(estimates, a.unsettled())
	}
	shares, rest := apportion(spent-l.spent, append(estimates, l.departed))
	for i, a := range accounts {
		a.cpu += shares[i]
		a.settled += estimates[i]
	}
	l.spent, l.departed = spent, 0
	l.other += rest + shares[len(accounts)]
}

// settleDue is settle, unless that was done a moment ago.
func (n *Node) settleDue(spent func() time.Duration) {
	n.mu.Lock()
	now := time.Now()
	due := now.Sub(n.ledger.at) >= settleEvery
	if due {
		n.ledger.at = now
	}
	n.mu.Unlock()
	if due {
		n.settle(spent())
	}
}

// unsettled is what the workload's work since the last time is estimated to have cost. Called with Node.mu held.
func (a *Account) unsettled() time.Duration { return time.Duration(a.work.Load()) - a.settled }

// Did counts what was done for the workload. A nil account counts nothing.
func (a *Account) Did(w Work) {
	if a != nil {
		a.bytes.Add(w.TunnelBytes + w.PlainBytes)
		a.work.Add(int64(w.cost()))
	}
}
