package nettest

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/redirect/sklookup"
)

// SKLookup returns a back end with pins that go with the test.
func SKLookup(t testing.TB) *sklookup.Backend {
	t.Helper()
	b, err := sklookup.Open(PinDir(t))
	check(t, err)
	t.Cleanup(b.Close)
	return b
}

// PinDir returns a directory for pins whose file system goes with the test.
func PinDir(t testing.TB) string {
	t.Helper()
	mount := filepath.Join(t.TempDir(), "bpf")
	check(t, os.Mkdir(mount, 0o700))
	check(t, unix.Mount("bpf", mount, "bpf", 0, ""))
	t.Cleanup(func() { check(t, unix.Unmount(mount, unix.MNT_DETACH)) })
	return filepath.Join(mount, "mesh")
}
