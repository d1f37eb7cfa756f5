package proxy

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// migrateSetting, below /proc: without it, connections queued on a listener that closes are reset although another proxy listens
// too.
const migrateSetting = "sys/net/ipv4/tcp_migrate_req"

// migrateQueued turns the setting on in the network namespace of the calling thread. In a container /proc/sys is read-only, so
// that it is written through a view of proc of its own, which the thread may make because it may enter namespaces.
func migrateQueued() error {
	if now, err := os.ReadFile("/proc/" + migrateSetting); err == nil && strings.TrimSpace(string(now)) == "1" {
		return nil // the CNI agent was first
	}
	err := os.WriteFile("/proc/"+migrateSetting, []byte("1"), 0o644)
	if err == nil || !errors.Is(err, syscall.EROFS) {
		return err
	}
	proc, err := mountProc()
	if err != nil {
		return err
	}
	defer unix.Close(proc)
	fd, err := unix.Openat(proc, migrateSetting, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", migrateSetting, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("1")); err != nil {
		return fmt.Errorf("write %s: %w", migrateSetting, err)
	}
	return nil
}

// mountProc makes a view of proc that is mounted nowhere and goes with its descriptor.
func mountProc() (int, error) {
	config, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open proc: %w", err)
	}
	defer unix.Close(config)
	if err := unix.FsconfigCreate(config); err != nil {
		return -1, fmt.Errorf("make a view of proc: %w", err)
	}
	mount, err := unix.Fsmount(config, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1, fmt.Errorf("make a view of proc: %w", err)
	}
	return mount, nil
}
