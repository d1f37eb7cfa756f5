package netx

import "sync"

// Buffers lends byte slices of four sizes. The zero value is ready; safe for concurrent use. Components
// share [Pool], so that what one direction gave back serves the next.
type Buffers struct{ small, medium, large, huge sync.Pool }

// The sizes a Buffers lends. A medium one holds a TLS record, or its payload and a frame head that was left over; the others hold
// four and sixteen.
const (
	SmallBuffer  = 2 << 10
	MediumBuffer = 16<<10 + 512
	LargeBuffer  = 64<<10 + 512
	HugeBuffer   = 256<<10 + 1<<10
)

// Pool is the process's pool of copy buffers. It holds no state but free memory.
var Pool = &Buffers{} //nolint:gochecknoglobals // free memory is global by nature

// Get returns a slice of the smallest size that holds n bytes, or a fresh one when n is above HugeBuffer.
func (p *Buffers) Get(n int) []byte {
	switch {
	case n <= SmallBuffer:
		if b, ok := p.small.Get().(*[SmallBuffer]byte); ok {
			return b[:]
		}
		return make([]byte, SmallBuffer)
	case n <= MediumBuffer:
		if b, ok := p.medium.Get().(*[MediumBuffer]byte); ok {
			return b[:]
		}
		return make([]byte, MediumBuffer)
	case n <= LargeBuffer:
		if b, ok := p.large.Get().(*[LargeBuffer]byte); ok {
			return b[:]
		}
		return make([]byte, LargeBuffer)
	case n <= HugeBuffer:
		if b, ok := p.huge.Get().(*[HugeBuffer]byte); ok {
			return b[:]
		}
		return make([]byte, HugeBuffer)
	}
	return make([]byte, n)
}

// Put takes a slice from Get back; b starts where the lent slice did. Slices of other capacities are dropped.
func (p *Buffers) Put(b []byte) {
	switch cap(b) {
	case SmallBuffer:
		p.small.Put((*[SmallBuffer]byte)(b[:SmallBuffer]))
	case MediumBuffer:
		p.medium.Put((*[MediumBuffer]byte)(b[:MediumBuffer]))
	case LargeBuffer:
		p.large.Put((*[LargeBuffer]byte)(b[:LargeBuffer]))
	case HugeBuffer:
		p.huge.Put((*[HugeBuffer]byte)(b[:HugeBuffer]))
	}
}
