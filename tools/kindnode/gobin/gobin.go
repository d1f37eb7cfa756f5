// Package gobin builds pinned Go programs, each once per content of its module files and flags.
package gobin

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/kindnode/cache"
)

// Set is a group of programs out of one module, built by one invocation of the compiler so that what they share is
// compiled once.
type Set struct {
	Name     string   // for messages
	Dir      string   // folder of the module, relative to the repository
	LDFlags  string   // linker flags beyond -s -w
	Inputs   []string // files and folders that decide the result, relative to Dir; the whole of Dir when empty
	Packages []string // import paths; a program is called like the last element
}

// Programs lists the names of the set's programs.
func (s Set) Programs() []string {
	var out []string
	for _, p := range s.Packages {
		out = append(out, programName(s, p))
	}
	return out
}

// Builder builds sets for this machine's architecture.
type Builder struct {
	Repo  string // root of the repository
	Cache cache.Cache
	Log   *slog.Logger
}

// Build gives the path of each program of the set, building those that are not in the cache. only restricts it to
// some programs; nil means all.
func (b Builder) Build(ctx context.Context, s Set, only []string) (map[string]string, error) {
	key, err := b.key(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	out := map[string]string{}
	var missing []string
	for _, p := range s.Packages {
		name := programName(s, p)
		if only != nil && !slices.Contains(only, name) {
			continue
		}
		dir, ok := b.Cache.Dir("bin-"+name, key)
		if !ok {
			missing = append(missing, p)
		}
		out[name] = filepath.Join(dir, name)
	}
	if len(missing) == 0 {
		return out, nil
	}
	return out, b.compile(ctx, s, key, missing)
}

func (b Builder) compile(ctx context.Context, s Set, key string, packages []string) error {
	if err := os.MkdirAll(b.Cache.Root, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(b.Cache.Root, ".go-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	start := time.Now()
	b.Log.Info("building", "set", s.Name, "programs", len(packages))
	args := append([]string{"build", "-trimpath", "-ldflags", strings.TrimSpace("-s -w " + s.LDFlags), "-o", tmp + "/"}, packages...)
	cmd := b.goCommand(ctx, s, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s in %s: %w\n%s", s.Name, s.Dir, err, out)
	}
	for _, p := range packages {
		name := programName(s, p)
		// A package "." makes a program named like its module's folder, which is how the sets call it too.
		_, err := b.Cache.Make("bin-"+name, key, func(dir string) error {
			return os.Rename(filepath.Join(tmp, name), filepath.Join(dir, name))
		})
		if err != nil {
			return err
		}
	}
	b.Log.Info("built", "set", s.Name, "took", time.Since(start).Round(time.Second/10))
	return nil
}

func (b Builder) key(ctx context.Context, s Set) (string, error) {
	version, err := b.goCommand(ctx, s, "env", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOVERSION: %w", err)
	}
	k := cache.NewKey("gobin 1", s.Name, s.LDFlags, strings.TrimSpace(string(version)), runtime.GOARCH)
	inputs := s.Inputs
	if len(inputs) == 0 {
		inputs = []string{"."}
	}
	for _, in := range inputs {
		k.Tree(filepath.Join(b.Repo, s.Dir, in))
	}
	return k.Sum()
}

// goCommand runs the go command outside the workspace, because each module here has its own set of versions.
func (b Builder) goCommand(ctx context.Context, s Set, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(b.Repo, s.Dir)
	cmd.Env = append(cmd.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false", "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH)
	return cmd
}

func programName(s Set, pkg string) string {
	if pkg == "." {
		return filepath.Base(s.Dir)
	}
	return path.Base(pkg)
}
