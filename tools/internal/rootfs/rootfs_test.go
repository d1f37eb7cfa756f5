package rootfs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/internal/rootfs"
)

func TestTarIsWhole(t *testing.T) {
	tree := rootfs.New()
	tree.Data("/etc/x", 0o600, []byte("hello"))
	tree.Link("/bin/y", "/etc/x")
	first, err := tree.Tar(time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	if len(first)%512 != 0 || !bytes.HasSuffix(first, make([]byte, 1024)) {
		t.Error("the end of the archive is missing")
	}
	again := rootfs.New()
	if err := again.Unpack(bytes.NewReader(first), func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	// The file is found through the links of both directory and file.
	if data, err := again.Read("/usr/bin/y"); err != nil || string(data) != "hello" || !again.Has("/bin/y") || again.Has("/bin/z") {
		t.Errorf("%q, %v", data, err)
	}
	second, err := again.Tar(time.Unix(1, 0))
	if err != nil || !bytes.Equal(first, second) {
		t.Error("what was unpacked is packed otherwise", err)
	}
}

func TestCPIO(t *testing.T) {
	tree := rootfs.New()
	tree.Data("/etc/x", 0o644, []byte("hello"))
	tree.Link("/init", "etc/x")
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte("#!"), 0o600); err != nil {
		t.Fatal(err)
	}
	tree.Program("/usr/bin/program", file)
	out, err := tree.CPIO()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"hello", "etc/x\x00", "#!", "usr/bin/program\x00", "TRAILER!!!\x00"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("%q is missing", want)
		}
	}
	if !bytes.HasPrefix(out, []byte("070701")) || len(out)%4 != 0 {
		t.Errorf("starts with %q", out[:6])
	}
}
