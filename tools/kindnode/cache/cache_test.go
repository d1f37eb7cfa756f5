package cache

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func sum(t *testing.T, k *Key) string {
	t.Helper()
	s, err := k.Sum()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestKeySeparatesParts(t *testing.T) {
	if sum(t, NewKey("a", "b")) == sum(t, NewKey("ab")) {
		t.Error(`("a", "b") and ("ab") have one key`)
	}
	if sum(t, NewKey("a").Add("b")) != sum(t, NewKey("a", "b")) {
		t.Error("adding one by one changes the key")
	}
}

func TestKeyOfTree(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("a", "one", 0o644)
	first := sum(t, NewKey().Tree(dir))
	if first != sum(t, NewKey().Tree(dir)) {
		t.Fatal("the key of one tree is not stable")
	}
	write("b", "", 0o644)
	second := sum(t, NewKey().Tree(dir))
	if second == first {
		t.Error("a new empty file does not change the key")
	}
	if err := os.Chmod(filepath.Join(dir, "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if sum(t, NewKey().Tree(dir)) == second {
		t.Error("an execute bit does not change the key")
	}
	if _, err := NewKey().Tree(filepath.Join(dir, "absent")).Sum(); err == nil {
		t.Error("an absent tree has a key")
	}
}

func TestMake(t *testing.T) {
	c := Cache{Root: t.TempDir()}
	broken := errors.New("broken")
	if _, err := c.Make("x", "1", func(string) error { return broken }); !errors.Is(err, broken) {
		t.Fatalf("error of the build: got %v", err)
	}
	if _, ok := c.Dir("x", "1"); ok {
		t.Fatal("a failed build is kept")
	}
	builds := 0
	for range 2 {
		dir, err := c.Make("x", "1", func(dir string) error {
			builds++
			return os.WriteFile(filepath.Join(dir, "f"), nil, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "f")); err != nil {
			t.Fatal(err)
		}
	}
	if builds != 1 {
		t.Errorf("built %d times, want once", builds)
	}
}
