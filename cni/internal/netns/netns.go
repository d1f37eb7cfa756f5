// Package netns opens, checks and enters network namespaces by file.
package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// ID tells two namespaces apart, whatever path they were opened by.
type ID struct{ Dev, Ino uint64 }

// String prints device and inode the way procfs does.
func (id ID) String() string { return fmt.Sprintf("%d:[%d]", id.Dev, id.Ino) }

// ErrNotNetns is returned for files that are not a network namespace.
var ErrNotNetns = errors.New("not a network namespace")

// Open opens path and checks that it is a network namespace. The caller closes the file.
func Open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	if err := Check(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return f, nil
}

// Check reports whether f is a network namespace.
func Check(f *os.File) error {
	var kind int
	err := control(f, func(fd int) error {
		var err error
		kind, err = unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
		return err
	})
	if err != nil || kind != unix.CLONE_NEWNET {
		return ErrNotNetns
	}
	return nil
}

// Identify returns the identity of the namespace behind f.
func Identify(f *os.File) (ID, error) {
	var st unix.Stat_t
	if err := control(f, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return ID{}, fmt.Errorf("stat network namespace: %w", err)
	}
	return ID{Dev: uint64(st.Dev), Ino: st.Ino}, nil
}

// Host opens the namespace that this process runs in.
func Host() (*os.File, error) { return Open("/proc/self/ns/net") }

// control runs fn with f's descriptor, which stays open for as long as fn runs.
func control(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var fnErr error
	if err := raw.Control(func(fd uintptr) { fnErr = fn(int(fd)) }); err != nil {
		return err
	}
	return fnErr
}

// Do runs fn on a thread inside the namespace f. The thread is thrown away when it can't be brought back, so no
// other goroutine ever runs in the wrong namespace. fn must not start goroutines that rely on the namespace.
func Do(f *os.File, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- enter(f, fn)
	}()
	return <-done
}

// enter is called on a locked thread, which it unlocks only when it is back in its own namespace.
func enter(f *os.File, fn func() error) error {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer own.Close()
	if err := control(f, func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) }); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", f.Name(), err)
	}
	fnErr := fn()
	if err := control(own, func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) }); err == nil {
		runtime.UnlockOSThread()
	}
	return fnErr
}

// DoWithProc is Do for what writes to /proc/sys, which is read-only in containers: fn runs on a thread with mounts of its own,
// where it is not. The thread is thrown away.
func DoWithProc(f *os.File, fn func() error) error {
	return netx.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("leave the mounts of the container: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make own mounts private: %w", err)
		}
		if err := unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("make /proc/sys writable: %w", err)
		}
		if err := control(f, func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) }); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", f.Name(), err)
		}
		return fn()
	})
}

// OfProcess opens the namespace of a process, below the procfs proc.
func OfProcess(proc string, pid int) (*os.File, error) {
	return Open(filepath.Join(proc, strconv.Itoa(pid), "ns/net"))
}

// Addresses returns the addresses of the namespace's interfaces, loopback's left out.
func Addresses(f *os.File) ([]netip.Addr, error) {
	h, err := netlink.NewHandleAt(vns.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", f.Name(), err)
	}
	defer h.Close()
	list, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses in %s: %w", f.Name(), err)
	}
	var out []netip.Addr
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && !ip.IsLoopback() {
			out = append(out, ip.Unmap())
		}
	}
	return out, nil
}
