package netx

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

const (
	// portRange, in a network namespace, is whence the kernel takes the ports of connections.
	portRange = "/proc/sys/net/ipv4/ip_local_port_range"
	// leastPort of ours: below it applications listen, some of them without SO_REUSEADDR, for which our port would be taken.
	leastPort = 16384
	// fewestPorts of a span are worth using.
	fewestPorts = 256
	// crowdedFor is how many connections leave a span alone after one of its ports was in use.
	crowdedFor = 64
)

// spoofPorts chooses the ports of connections that come from a foreign address, away from those that the address's owner uses for
// connections of its own: outside of the range from which kernels take them. Two connections with the same addresses and ports, one of
// ours and one of the owner's, would be one to connection tracking, and to the socket table: the first packet of the owner's is not
// redirected but given to our application's socket, and the owner waits until it gives up; that of ours ends the owner's.
type spoofPorts struct {
	once  sync.Once
	spans [2]portSpan // above the range, and below it
}

// portSpan is a row of ports. What is not atomic is immutable once it is in use.
type portSpan struct {
	base    int
	count   uint32
	next    atomic.Uint32
	crowded atomic.Int32 // connections that are still to leave it alone: most of it waits for its time to end, as a rule
}

// take returns a port, or 0 if the kernel is to choose. It is called in the namespace of the connection.
func (p *spoofPorts) take() int {
	p.once.Do(func() {
		text, err := os.ReadFile(portRange)
		if err != nil {
			return
		}
		least, most := kernelPorts(string(text))
		p.spans[0].set(most+1, 65535)
		p.spans[1].set(leastPort, least-1)
	})
	for i := range p.spans {
		s := &p.spans[i]
		if s.count > 0 && (s.crowded.Load() <= 0 || s.crowded.Add(-1) < 0) {
			return s.base + int(s.next.Add(1)%s.count)
		}
	}
	return 0
}

// refused reports whether err says that a port of take's cannot be used; the next is from elsewhere.
func (p *spoofPorts) refused(port int, err error) bool {
	if port == 0 || !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, errSecondSocket) {
		return false
	}
	for i := range p.spans {
		if s := &p.spans[i]; port >= s.base && port < s.base+int(s.count) {
			s.crowded.Store(crowdedFor)
		}
	}
	return true
}

func (s *portSpan) set(first, last int) {
	if last-first+1 < fewestPorts {
		return
	}
	s.base, s.count = first, uint32(last-first+1)
	s.next.Store(rand.Uint32())
}

// kernelPorts reads a range; of what is none it makes one that leaves nothing.
func kernelPorts(text string) (least, most int) {
	if _, err := fmt.Sscan(text, &least, &most); err != nil || least < 0 || most < least {
		return 0, 65535
	}
	return least, most
}
