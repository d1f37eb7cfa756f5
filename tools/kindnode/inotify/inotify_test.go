package inotify

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRaise(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"max_user_instances": "128\n", "max_user_watches": "1000000\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := Raise(dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"max_user_instances": "1024", "max_user_watches": "1000000\n"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	if err := Raise(t.TempDir()); err == nil {
		t.Error("no error without the files")
	}
}
