// Package rootfs builds the file system that a container sees: the machine's own files, shared, with a private /etc,
// /run and /tmp, and with volumes on top. Nothing that a container writes outside of its volumes survives it or is
// seen by others, except under the machine's directories that it shares (/home, /root, /usr, /var, ...).
package rootfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/ns"
)

// Bind shows the file or directory Source, a path of the supervisor's, as Target.
type Bind struct {
	Source, Target string
	ReadOnly       bool
}

// Spec says what a root file system has beyond the machine's files.
type Spec struct {
	// Scratch is an existing directory on which the new root is put together.
	Scratch string
	// Files are written as they are, by absolute path; their directories are made.
	Files map[string]File
	// Binds are mounted in order, after Files.
	Binds []Bind
}

// File is a file's content and mode.
type File struct {
	Data []byte
	Mode os.FileMode
}

// oldRoot is where the machine's root stays reachable while the new one is furnished.
const oldRoot = "/.old"

// New builds the root file system in a mount namespace of its own and returns that.
func New(spec Spec) (*os.File, error) {
	return ns.NewMount(func() error {
		b := &builder{writable: []string{"/run", "/tmp", "/etc"}}
		if err := b.enter(spec.Scratch); err != nil {
			return err
		}
		for path, file := range spec.Files {
			if err := b.write(path, file); err != nil {
				return err
			}
		}
		for _, bind := range spec.Binds {
			if err := b.bind(bind); err != nil {
				return err
			}
		}
		if err := unix.Unmount(oldRoot, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("let the machine's root go: %w", err)
		}
		return os.Remove(oldRoot)
	})
}

type builder struct {
	// writable are the directories under which a new entry touches nothing of the machine's.
	writable []string
	overlays int
}

// enter makes a tmpfs at scratch, shows the machine's top-level directories in it, and makes it the root.
func (b *builder) enter(scratch string) error {
	if err := unix.Mount("sandbox-root", scratch, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount the new root: %w", err)
	}
	// Unbindable: the machine's directory that holds scratch is shown below scratch, without scratch in it.
	if err := unix.Mount("", scratch, "", unix.MS_UNBINDABLE, ""); err != nil {
		return fmt.Errorf("keep the new root out of itself: %w", err)
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := share(entry, scratch); err != nil {
			return err
		}
	}
	// Overlays refuse layers on an unbindable mount.
	if err := unix.Mount("", scratch, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the new root private: %w", err)
	}
	for dir, mode := range map[string]os.FileMode{"run": 0o755, "tmp": 0o777 | os.ModeSticky, "etc": 0o755, oldRoot: 0o700} {
		path := filepath.Join(scratch, dir)
		if err := os.Mkdir(path, mode); err != nil {
			return err
		}
		if err := os.Chmod(path, mode); err != nil { // Mkdir is subject to the umask.
			return err
		}
	}
	if err := unix.PivotRoot(scratch, filepath.Join(scratch, oldRoot)); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return b.overlay("/etc", oldRoot+"/etc")
}

// share shows one top-level entry of the machine's root in the new one.
func share(entry os.DirEntry, scratch string) error {
	name := entry.Name()
	switch name {
	case "run", "tmp", "etc", "lost+found":
		return nil
	}
	from, to := "/"+name, filepath.Join(scratch, name)
	switch {
	case entry.Type()&os.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case entry.IsDir():
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("show %s in the new root: %w", from, err)
		}
	}
	return nil
}

// overlay puts a writable layer over dir, whose content comes from lower.
func (b *builder) overlay(dir, lower string) error {
	b.overlays++
	layer := fmt.Sprintf("/.layers/%d", b.overlays)
	for _, sub := range []string{"/upper", "/work"} {
		if err := os.MkdirAll(layer+sub, 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, layer, layer)
	if err := unix.Mount("sandbox-layer", dir, "overlay", 0, options); err != nil {
		return fmt.Errorf("put a writable layer over %s (is overlayfs in the kernel?): %w", dir, err)
	}
	b.writable = append(b.writable, dir)
	return nil
}

func (b *builder) write(path string, file File) error {
	if err := b.makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	// The machine's may be a symbolic link to a place that is not there.
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	mode := file.Mode
	if mode == 0 {
		mode = 0o644
	}
	return os.WriteFile(path, file.Data, mode)
}

func (b *builder) bind(bind Bind) error {
	source := oldRoot + bind.Source
	info, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("mount %s: %w", bind.Target, err)
	}
	if err := b.makeTarget(bind.Target, info.IsDir()); err != nil {
		return fmt.Errorf("make the mount point %s: %w", bind.Target, err)
	}
	if err := unix.Mount(source, bind.Target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", bind.Source, bind.Target, err)
	}
	if bind.ReadOnly {
		if err := unix.Mount("", bind.Target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make %s read-only: %w", bind.Target, err)
		}
	} else {
		b.writable = append(b.writable, bind.Target)
	}
	return nil
}

func (b *builder) makeTarget(target string, dir bool) error {
	if info, err := os.Stat(target); err == nil && info.IsDir() == dir {
		return nil
	}
	if dir {
		return b.makeDir(target)
	}
	if err := b.makeDir(filepath.Dir(target)); err != nil {
		return err
	}
	if err := b.makeWritable(filepath.Dir(target)); err != nil {
		return err
	}
	file, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return file.Close()
}

// makeDir makes dir and its parents, in a writable layer where the machine's own files would be touched.
func (b *builder) makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	for {
		if info, err := os.Stat(parent); err == nil && info.IsDir() {
			break
		}
		parent = filepath.Dir(parent)
	}
	if err := b.makeWritable(parent); err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o755)
}

// makeWritable puts a layer over the existing directory dir unless a new entry there is private already.
func (b *builder) makeWritable(dir string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	if dir == "/" {
		return nil
	}
	for _, w := range b.writable {
		if dir == w || strings.HasPrefix(dir, w+"/") {
			return nil
		}
	}
	return b.overlay(dir, dir)
}
