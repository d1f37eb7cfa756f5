package h2

// SendWindow is how much the peer lets us send. It may be negative after SETTINGS shrank it.
type SendWindow struct{ n int64 }

// NewSendWindow returns a window of n bytes.
func NewSendWindow(n uint32) SendWindow { return SendWindow{int64(n)} }

// Available returns how many bytes may be sent now; never negative.
func (w *SendWindow) Available() int64 { return max(w.n, 0) }

// Take uses n bytes; n must not exceed Available.
func (w *SendWindow) Take(n int64) { w.n -= n }

// Add grows the window by delta, which is negative when SETTINGS shrank the initial window. It reports false
// when the window would exceed MaxWindow, a flow-control error.
func (w *SendWindow) Add(delta int64) bool {
	if w.n+delta > MaxWindow {
		return false
	}
	w.n += delta
	return true
}

// RecvWindow is how much we let the peer send. Consumed bytes are given back in batches of at least half
// the window, so that bulk flows cost few WINDOW_UPDATE frames.
type RecvWindow struct {
	avail int64 // what the peer may still send
	owed  int64 // consumed, not yet given back
	size  int64
}

// NewRecvWindow returns a window of size bytes of which the peer already knows.
func NewRecvWindow(size uint32) RecvWindow { return RecvWindow{avail: int64(size), size: int64(size)} }

// Receive accounts for n bytes from the peer; false means that it sent more than allowed.
func (w *RecvWindow) Receive(n int64) bool {
	if n > w.avail {
		return false
	}
	w.avail -= n
	return true
}

// Consume accounts for n bytes that need no buffer any more and returns the increment to announce now, or 0.
func (w *RecvWindow) Consume(n int64) uint32 {
	w.owed += n
	if w.owed < w.size/2 {
		return 0
	}
	incr := w.owed
	w.owed = 0
	w.avail += incr
	return uint32(incr)
}
