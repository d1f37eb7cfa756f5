package rootfs

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEditSpec(t *testing.T) {
	got, err := editSpec([]byte(`{"process":{"rlimits":[{"type":"RLIMIT_NOFILE"}],"cwd":"/"},"ociVersion":"1.0.2"}`))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(got, &doc); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"ociVersion": "1.0.2",
		"process":    map[string]any{"cwd": "/"},
		"hooks":      map[string]any{"createContainer": []any{map[string]any{"path": "/kind/bin/mount-product-files.sh"}}},
	}
	if diff := cmp.Diff(want, doc); diff != "" {
		t.Error(diff)
	}
}

func TestParseLDD(t *testing.T) {
	const text = "/usr/sbin/nft:\n\tlinux-vdso.so.1 (0x7f)\n\tlibnftables.so.1 => /lib/x86_64-linux-gnu/libnftables.so.1 (0x7f)\n" +
		"\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n/usr/sbin/ip:\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f)\n" +
		"\tlibnftables.so.1 => /lib/x86_64-linux-gnu/libnftables.so.1 (0x7f)\n\tstatically linked\n"
	want := []string{"/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libnftables.so.1", "/lib64/ld-linux-x86-64.so.2"}
	if diff := cmp.Diff(want, parseLDD(text)); diff != "" {
		t.Error(diff)
	}
}

func TestContainerdConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte("a = 1\n  restrict_oom_score_adj = false\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := containerdConfig(path); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != "a = 1\n  restrict_oom_score_adj = true\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := containerdConfig(path); err == nil {
		t.Error("a configuration without the setting is accepted")
	}
}

func TestOverlayAndResolve(t *testing.T) {
	files, root := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{"usr/local/bin/entrypoint": "#!/bin/sh\n", "etc/crictl.yaml": "x\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(files, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(files, name), []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	if err := overlay(root, files); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"usr/local/bin/entrypoint": 0o755, "etc/crictl.yaml": 0o644} {
		if info, err := os.Stat(filepath.Join(root, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if err := symlinks(root, map[string]string{"opt/link": "/usr/local/bin/entrypoint"}); err != nil {
		t.Fatal(err)
	}
	got, err := resolve(root, "/opt/link")
	if err != nil || got != filepath.Join(root, "usr/local/bin/entrypoint") {
		t.Errorf("resolve: %s, %v", got, err)
	}
}
