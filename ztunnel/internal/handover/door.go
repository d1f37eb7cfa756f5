package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// doorName is the socket of the newest instance that is ready.
const doorName = "successor.sock"

// ErrNoSuccessor means that nobody is there to take over: this instance drains.
var ErrNoSuccessor = errors.New("there is no other instance on the node")

// checkDir makes sure that nobody but this process's user can put something into dir, or enter it.
func checkDir(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", dir)
	case !ok || int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to another user", dir)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s is open to others (%s): chmod 0700", dir, info.Mode().Perm())
	}
	return nil
}

// checkPeer makes sure that the other end is a process of the same user.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(cerr, err); err != nil {
		return fmt.Errorf("ask who the other side is: %w", err)
	}
	if int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("the other side runs as user %d", peer.Uid)
	}
	return nil
}

// bootID tells one run of a kernel from all others: two instances that know it share the node.
func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(id)), nil
}

func doorOf(dir string) string { return filepath.Join(dir, doorName) }

// inode tells files apart that take each other's place.
func inode(path string) uint64 {
	var stat syscall.Stat_t
	if syscall.Lstat(path, &stat) != nil {
		return 0
	}
	return stat.Ino
}
