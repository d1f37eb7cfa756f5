package lb

import "sync/atomic"

// Host is what outlives a Set: the load of one endpoint. The zero value is ready; it must not be copied.
type Host struct{ active atomic.Int64 }

// Begin counts a request that was sent to the host.
func (h *Host) Begin() { h.active.Add(1) }

// End takes back a Begin.
func (h *Host) End() { h.active.Add(-1) }

// Active is how many requests are open.
func (h *Host) Active() int64 { return h.active.Load() }

// Health of a host.
type Health uint8

// The healths. Degraded hosts get what the healthy ones of all priorities cannot carry.
const (
	Healthy Health = iota
	Degraded
	Unhealthy
)

// Member is one host of a Set.
type Member struct {
	Host   *Host
	Health Health
	// Weight is relative to the others of the locality; 0 counts as 1.
	Weight uint32
	// Priority 0 is preferred; priorities have no gaps.
	Priority uint32
	// Locality groups members whose LocalityWeight applies to all of them together; see [Config].
	Locality       string
	LocalityWeight uint32
	// HashKey names the host on a ring: its address, or what the cluster hashes by.
	HashKey string
}

// Policy is how one of the eligible hosts is chosen.
type Policy uint8

// The policies.
const (
	LeastRequest Policy = iota
	RoundRobin
	Random
	RingHash
	Maglev
)

// hashes is whether requests with the same hash go to the same host.
func (p Policy) hashes() bool { return p == RingHash || p == Maglev }

// Config of a Set. The zero value is least-request over two choices, and panic never.
type Config struct {
	Policy Policy
	// Choices of LeastRequest; default 2.
	Choices uint32
	// MinRing and MaxRing bound the entries of a RingHash; defaults 1024 and 8 Mi.
	MinRing, MaxRing uint64
	// TableSize of Maglev, a prime; default 65537.
	TableSize uint64
	// PanicPercent: when fewer hosts of a priority are healthy, all are eligible. 0 is never.
	PanicPercent float64
	// Overprovisioning is how much more than its share a priority can carry, in percent; default 140.
	Overprovisioning uint32
	// LocalityWeighted distributes over localities by their weight before the weights of their hosts.
	LocalityWeighted bool
	// WeightedHealth measures the health of a priority by the weights of its hosts instead of their number.
	WeightedHealth bool
	// FailInPanic answers with no host where panic would pick among unhealthy ones.
	FailInPanic bool
}

func (c Config) withDefaults() Config {
	if c.Choices < 2 {
		c.Choices = 2
	}
	if c.MinRing == 0 {
		c.MinRing = 1024
	}
	if c.MaxRing == 0 {
		c.MaxRing = 8 << 20
	}
	if c.TableSize == 0 {
		c.TableSize = 65537
	}
	if c.Overprovisioning == 0 {
		c.Overprovisioning = 140
	}
	return c
}

// Rand is a source of uniform numbers; it must be safe for concurrent use.
type Rand interface{ Uint64() uint64 }
