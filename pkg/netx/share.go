package netx

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// UDP sockets of several processes may share an address by SO_REUSEPORT, so that one process takes the place of another. The kernel then
// shares packets out among them, and what waits at one that is closed is lost: nobody is told, and whoever sent it waits.

const (
	// settle is how long packets may still arrive at a socket that was chosen for them before it withdrew.
	settle = 20 * time.Millisecond
	// settleCheck is how often it is asked whether all has been read.
	settleCheck = time.Millisecond
)

// Precede makes a UDP socket of in get all packets for its address from now on, before those that had the address earlier, whatever
// their processes know of it. Those keep what they have got. It goes back to sharing when one of them ends that is not the oldest.
func Precede(in Network, socket syscall.Conn) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return fmt.Errorf("take over an address: %w", err)
	}
	local, err := localOf(raw)
	if err != nil {
		return fmt.Errorf("take over an address: %w", err)
	}
	inside := func(f func() error) error { return f() }
	if ns, ok := in.(interface{ Do(f func() error) error }); ok {
		inside = ns.Do
	}
	count := 0
	for {
		var now int
		if err := inside(func() (err error) { now, err = sharers(local); return err }); err != nil {
			return fmt.Errorf("take over %s: %w", local, err)
		}
		if now == count {
			return nil
		}
		if count = now; count == 0 {
			return fmt.Errorf("take over %s: the kernel does not list the socket", local)
		}
		// The kernel appends to the group, so that the newest socket is the last.
		if err := choose(raw, uint32(count-1)); err != nil {
			return fmt.Errorf("take over %s: %w", local, err)
		}
	}
}

// nobody is the number of no socket: the kernel shares out then.
const nobody = math.MaxUint32

// choose sets which of the sockets on the same address gets the packets, by its number in the kernel's list.
func choose(raw syscall.RawConn, number uint32) (err error) {
	filter := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: number}
	cerr := raw.Control(func(fd uintptr) {
		err = os.NewSyscallError("SO_ATTACH_REUSEPORT_CBPF",
			unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &filter}))
	})
	return errors.Join(cerr, err)
}

// sharers counts the UDP sockets on an address, in the network namespace of the calling thread.
func sharers(local netip.AddrPort) (n int, err error) {
	path, address := "/proc/thread-self/net/udp", local.Addr().AsSlice()
	if local.Addr().Is6() {
		path += "6"
	}
	var want strings.Builder
	for ; len(address) > 0; address = address[4:] {
		fmt.Fprintf(&want, "%08X", binary.NativeEndian.Uint32(address))
	}
	fmt.Fprintf(&want, ":%04X", local.Port())
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[1] == want.String() {
			n++
		}
	}
	return n, lines.Err()
}

// Withdraw leaves new packets for a UDP socket's address to the other sockets that have it, and returns when somebody has read those that
// had come before: then it may be closed, and none is lost. It still sends. The error is that of ctx, or of the kernel.
func Withdraw(ctx context.Context, socket syscall.Conn) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return fmt.Errorf("leave an address: %w", err)
	}
	local, err := localOf(raw)
	if err != nil {
		return fmt.Errorf("leave an address: %w", err)
	}
	// A connected socket gets packets from its peer alone, and this one will be its own; but not so if it is the chosen one. Some kernels
	// take connected sockets out of the group: they choose no more.
	if err := choose(raw, nobody); err != nil {
		return fmt.Errorf("leave %s: %w", local, err)
	}
	cerr := raw.Control(func(fd uintptr) { err = os.NewSyscallError("connect", unix.Connect(int(fd), sockaddr(local))) })
	if err := errors.Join(cerr, err); err != nil {
		return fmt.Errorf("leave %s: %w", local, err)
	}
	check := time.NewTicker(settleCheck)
	defer check.Stop()
	for begin := time.Now(); ; {
		select {
		case <-check.C:
		case <-ctx.Done():
			return fmt.Errorf("leave %s: not all packets have been read: %w", local, context.Cause(ctx))
		}
		var waiting bool
		cerr := raw.Control(func(fd uintptr) { waiting, err = readable(int(fd)) })
		if err := errors.Join(cerr, err); err != nil {
			return fmt.Errorf("leave %s: %w", local, err)
		}
		if !waiting && time.Since(begin) >= settle {
			return nil
		}
	}
}

func readable(fd int) (bool, error) {
	list := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	_, err := unix.Poll(list, 0)
	if errors.Is(err, unix.EINTR) {
		return true, nil
	}
	return list[0].Revents&unix.POLLIN != 0, os.NewSyscallError("poll", err)
}

func localOf(raw syscall.RawConn) (local netip.AddrPort, err error) {
	cerr := raw.Control(func(fd uintptr) {
		var name unix.Sockaddr
		if name, err = unix.Getsockname(int(fd)); err != nil {
			err = os.NewSyscallError("getsockname", err)
			return
		}
		switch a := name.(type) {
		case *unix.SockaddrInet4:
			local = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
		case *unix.SockaddrInet6:
			local = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
		default:
			err = errors.New("not a UDP socket")
		}
	})
	return local, errors.Join(cerr, err)
}
