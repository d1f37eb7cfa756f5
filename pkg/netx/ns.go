package netx

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
)

// NS creates sockets in one network namespace. Safe for concurrent use.
type NS struct{}

// NewNS returns a Network for the namespace that file refers to. It takes ownership of file.
func NewNS(file *os.File, opt Options) (*NS, error) { return nil, errors.ErrUnsupported }

// HostNS returns a Network for the namespace the process runs in.
func HostNS(opt Options) *NS { return &NS{} }

// Identity returns device and inode of the namespace; two NS of the same namespace have the same.
func (*NS) Identity() (dev, ino uint64) { return 0, 0 }

// Close releases the namespace. Sockets made before stay open.
func (*NS) Close() error { return nil }

// Listen implements [Network].
func (*NS) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	return nil, errors.ErrUnsupported
}

// ListenPacket implements [Network].
func (*NS) ListenPacket(ctx context.Context, network, addr string) (net.PacketConn, error) {
	return nil, errors.ErrUnsupported
}

// Dial implements [Network].
func (*NS) Dial(ctx context.Context, network string, addr netip.AddrPort, local netip.Addr) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

// InNS runs fn on a thread inside the network namespace that fd refers to.
func InNS(fd int, fn func() error) error { return errors.ErrUnsupported }

// OriginalDst returns where a redirected connection was going.
func OriginalDst(c *net.TCPConn) (netip.AddrPort, error) {
	return netip.AddrPort{}, errors.ErrUnsupported
}
