package delta

import "time"

// Closed says how a connection ended, which decides how soon the next one is tried.
type Closed uint8

// How a connection can end.
const (
	// ClosedError is a failed dial or a gRPC error not named below.
	ClosedError Closed = iota
	// ClosedQuick is Unknown, Cancelled, DeadlineExceeded, or GOAWAY.
	ClosedQuick
	// ClosedEOF is an orderly end by the server.
	ClosedEOF
)

// The waits between connections.
const (
	MinBackoff   = 20 * time.Millisecond
	MaxBackoff   = 15 * time.Second
	QuickBackoff = 10 * time.Millisecond
)

// backoff doubles from MinBackoff to MaxBackoff with each error in a row.
type backoff struct{ next time.Duration }

// after returns how long to wait. A server that ends each stream before it says anything would have us dial in a tight
// loop, hence "at once" is only for connections that had been useful.
func (b *backoff) after(how Closed, useful bool) time.Duration {
	if useful {
		b.next = 0
	}
	switch {
	case how == ClosedEOF && useful:
		return 0
	case how == ClosedEOF, how == ClosedQuick:
		return QuickBackoff
	}
	wait := max(b.next, MinBackoff)
	b.next = min(2*wait, MaxBackoff)
	return wait
}
