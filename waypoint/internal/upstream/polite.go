package upstream

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
)

// farewell is how long the end of the other direction is waited for when a tunnelled connection is closed.
const farewell = time.Second

// polite is a tunnelled connection that ends as a TCP connection does: by the end of each direction. Resetting the streams of
// connections that come and go would look to the peer like an attack.
type polite struct {
	*hbone.Stream

	mu      sync.Mutex // guards the rest
	left    sync.Cond
	readers int
	closed  bool
}

func politely(s *hbone.Stream) *polite {
	p := &polite{Stream: s}
	p.left.L = &p.mu
	return p
}

// Read implements net.Conn.
func (p *polite) Read(b []byte) (int, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return 0, net.ErrClosed
	}
	p.readers++
	p.mu.Unlock()
	n, err := p.Stream.Read(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readers--; p.closed {
		p.left.Signal()
		n, err = 0, net.ErrClosed
	}
	return n, err
}

// SetReadDeadline implements net.Conn. After Close the deadline is our own.
func (p *polite) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	return p.Stream.SetReadDeadline(t)
}

// Close implements net.Conn. It does not wait.
func (p *polite) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	if p.CloseWrite() != nil {
		return p.Stream.Close()
	}
	p.Stream.SetReadDeadline(time.Unix(1, 0)) // who reads is to leave
	go p.leave()
	return nil
}

// leave waits for the end of the other direction.
func (p *polite) leave() {
	p.mu.Lock()
	for p.readers > 0 {
		p.left.Wait()
	}
	p.mu.Unlock()
	p.Stream.SetReadDeadline(time.Now().Add(farewell))
	_, _ = io.Copy(io.Discard, reader{p.Stream}) // what comes now is of no use
	p.Stream.Close()
}

// Reset aborts both directions.
func (p *polite) Reset() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Stream.Reset()
}

// reader hides all but reading.
type reader struct{ io.Reader }
