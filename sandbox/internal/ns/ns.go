// Package ns creates Linux namespaces and runs functions inside them.
//
// A namespace is held by an open file: as long as somebody holds it, it lives, and when the last holder dies the kernel
// takes the namespace back with everything in it. The sandbox makes no other use of names for namespaces than the pins
// which the CNI plugins need, and those are mounts inside the supervisor's own mount namespace.
package ns

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// Set is the namespaces that a function or a process joins. What is nil is left as it is.
type Set struct {
	Net, Mount, UTS, PID *os.File
}

// Do runs fn on a thread that has joined the namespaces of s. The thread is thrown away afterwards, so nothing that fn
// does to it can reach another goroutine. Processes that fn starts inherit the namespaces.
func (s Set) Do(fn func() error) error {
	return netx.OnThread(func() error {
		if err := s.join(); err != nil {
			return err
		}
		return fn()
	})
}

func (s Set) join() error {
	for _, one := range []struct {
		what string
		file *os.File
		flag int
	}{
		{"network", s.Net, unix.CLONE_NEWNET},
		{"uts", s.UTS, unix.CLONE_NEWUTS},
		{"pid", s.PID, unix.CLONE_NEWPID},
		// Last: it changes the root directory under which the others could have been opened.
		{"mount", s.Mount, unix.CLONE_NEWNS},
	} {
		if one.file == nil {
			continue
		}
		if one.flag == unix.CLONE_NEWNS {
			// A thread that shares its root with others may not change mount namespace.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("leave the shared root directory: %w", err)
			}
		}
		if err := unix.Setns(int(one.file.Fd()), one.flag); err != nil {
			return fmt.Errorf("join the %s namespace: %w", one.what, err)
		}
	}
	return nil
}

// NewNet makes a network namespace and pins it at the path pin, a file that is created for it.
func NewNet(pin string) (*os.File, error) {
	if err := os.WriteFile(pin, nil, 0o600); err != nil {
		return nil, fmt.Errorf("create the pin of a network namespace: %w", err)
	}
	var file *os.File
	err := netx.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("create a network namespace: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", pin, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin a network namespace at %s: %w", pin, err)
		}
		var err error
		file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		_ = os.Remove(pin)
		return nil, err
	}
	return file, nil
}

// Unpin removes a pin that NewNet made. The namespace lives on while somebody else holds it.
func Unpin(pin string) error {
	if err := unix.Unmount(pin, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unpin %s: %w", pin, err)
	}
	if err := os.Remove(pin); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("remove the pin: %w", err)
	}
	return nil
}

// NewMount makes a mount namespace, a copy of the caller's, and runs build in it. Nothing that build mounts is seen
// outside, and what is mounted outside later on shared mounts is seen inside.
func NewMount(build func() error) (*os.File, error) {
	var file *os.File
	err := netx.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("create a mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			return fmt.Errorf("separate the mount namespace from its parent: %w", err)
		}
		if err := build(); err != nil {
			return err
		}
		var err error
		file, err = os.Open("/proc/thread-self/ns/mnt")
		return err
	})
	return file, err
}

// NewUTS makes a UTS namespace with the given hostname.
func NewUTS(hostname string) (*os.File, error) {
	var file *os.File
	err := netx.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
			return fmt.Errorf("create a uts namespace: %w", err)
		}
		if err := unix.Sethostname([]byte(hostname)); err != nil {
			return fmt.Errorf("set the hostname to %q: %w", hostname, err)
		}
		var err error
		file, err = os.Open("/proc/thread-self/ns/uts")
		return err
	})
	return file, err
}
