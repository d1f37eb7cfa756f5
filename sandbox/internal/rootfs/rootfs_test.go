package rootfs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/ns"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/rootfs"
)

func TestNew(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "volume")
	if err := os.MkdirAll(source, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "hello"), []byte("world"), 0o644); err != nil {
		t.Fatal(err)
	}
	scratch := filepath.Join(dir, "scratch")
	if err := os.Mkdir(scratch, 0o755); err != nil {
		t.Fatal(err)
	}
	mnt, err := rootfs.New(rootfs.Spec{
		Scratch: scratch,
		Files: map[string]rootfs.File{
			"/etc/resolv.conf": {Data: []byte("nameserver 10.96.0.10\n")},
			"/var/run/secrets/kubernetes.io/serviceaccount/namespace": {Data: []byte("shop")},
		},
		Binds: []rootfs.Bind{
			{Source: source, Target: "/data-that-is-not-there/sub"},
			{Source: source, Target: "/var/lib/not-there/sub", ReadOnly: true},
			{Source: source, Target: "/tmp"},
			{Source: filepath.Join(source, "hello"), Target: "/isthmus/bin/hello", ReadOnly: true},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer mnt.Close()
	err = ns.Set{Mount: mnt}.Do(func() error {
		for path, want := range map[string]string{
			"/etc/resolv.conf": "nameserver 10.96.0.10\n",
			"/run/secrets/kubernetes.io/serviceaccount/namespace": "shop",
			"/data-that-is-not-there/sub/hello":                   "world",
			"/var/lib/not-there/sub/hello":                        "world",
			"/tmp/hello":                                          "world",
			"/isthmus/bin/hello":                                  "world",
		} {
			if got, err := os.ReadFile(path); err != nil || string(got) != want {
				t.Errorf("%s = %q, %v; want %q", path, got, err, want)
			}
		}
		if err := os.WriteFile("/var/lib/not-there/sub/x", nil, 0o644); err == nil {
			t.Error("a read-only volume could be written")
		}
		if _, err := os.Stat("/bin/sh"); err != nil {
			t.Errorf("the machine's programs are not there: %v", err)
		}
		if _, err := os.Stat("/.old"); err == nil {
			t.Error("the machine's root is still reachable")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/data-that-is-not-there", "/var/lib/not-there", "/isthmus"} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s was made on the machine", path)
		}
	}
}
