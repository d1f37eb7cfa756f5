package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// planePorts are those of the control plane's Service.
func planePorts() []int { return []int{15010, 15012, 15014} }

// relay stands before the control plane: every proxy's connection to it goes through here, where it can be cut.
type relay struct {
	bed       *bed
	listeners []net.Listener
	carrying  sync.WaitGroup

	mu     sync.Mutex // guards the rest
	open   map[net.Conn]struct{}
	closed bool
	cuts   int // connections that were cut
}

func newRelay(ctx context.Context, b *bed, host *guest) (*relay, error) {
	r := &relay{bed: b, open: map[net.Conn]struct{}{}}
	for _, port := range planePorts() {
		l, err := host.ns.Listen(ctx, "tcp", fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			r.close()
			return nil, err
		}
		r.listeners = append(r.listeners, l)
		r.carrying.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				r.carrying.Go(func() { r.carry(ctx, host, conn, port) })
			}
		})
	}
	return r, nil
}

// carry connects one proxy with a control plane that is ready.
func (r *relay) carry(ctx context.Context, host *guest, near net.Conn, port int) {
	defer near.Close()
	plane, err := r.plane(ctx)
	if err != nil {
		return // the proxy tries again
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	far, err := host.ns.Dial(ctx, "tcp", netip.AddrPortFrom(plane, uint16(port)), netip.Addr{})
	if err != nil {
		return
	}
	defer far.Close()
	if !r.hold(near, far) {
		return
	}
	defer r.drop(near, far)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(far, near)
		far.Close()
	}()
	_, _ = io.Copy(near, far)
	near.Close()
	<-done
}

// plane is the address of a control plane that is ready: the youngest.
func (r *relay) plane(ctx context.Context) (netip.Addr, error) {
	pods, err := r.bed.status(ctx, meshNamespace, "istiod-")
	if err != nil {
		return netip.Addr{}, err
	}
	var best netip.Addr
	var born time.Time
	for _, p := range pods {
		if p.Ready && !p.Terminating && len(p.IPs) > 0 && !p.Created.Before(born) {
			if a, err := netip.ParseAddr(p.IPs[0]); err == nil {
				best, born = a, p.Created
			}
		}
	}
	if !best.IsValid() {
		return best, errors.New("no control plane is ready")
	}
	return best, nil
}

func (r *relay) hold(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		if !r.closed {
			r.open[c] = struct{}{}
		}
	}
	return !r.closed
}

func (r *relay) drop(conns ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		delete(r.open, c)
	}
}

// cut ends every connection to the control plane.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cuts += len(r.open) / 2
	for c := range r.open {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, as when a node dies
		}
		c.Close()
	}
}

func (r *relay) cutSoFar() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cuts
}

func (r *relay) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	for _, l := range r.listeners {
		l.Close()
	}
	r.cut()
	r.carrying.Wait()
}
