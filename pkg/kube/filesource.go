package kube

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a file that is being written in place must be left alone before it is read. Files that are renamed
// into place, as they should be, are read at once.
const settle = 30 * time.Millisecond

// queue is how many events wait at most while others are looked at; so many are delivered as one group.
const queue = 1024

// FileSource delivers the objects of the manifests (.yaml, .yml, .json) below a directory, and their changes. A broken object
// keeps its last good version until its file is mended or removed. Of an object in several files, the one whose path sorts
// first counts.
type FileSource struct {
	// immutable
	dir     string
	log     *slog.Logger
	onError func([]ObjectError)

	// owned by Run
	watcher *fsnotify.Watcher
	watched map[string]bool      // directories
	pending map[string]time.Time // files written in place → when to read them
	tree    *tree

	// guarded by mu
	mu     sync.Mutex
	errors []ObjectError
}

// NewFileSource returns a source that reads and watches the manifests below dir. onError, which may be nil, is called with
// everything that is wrong at present whenever that changes.
func NewFileSource(dir string, log *slog.Logger, onError func([]ObjectError)) *FileSource {
	return &FileSource{dir: filepath.Clean(dir), log: log, onError: onError, watched: map[string]bool{}, pending: map[string]time.Time{}, tree: newTree()}
}

// Errors returns everything that is wrong at present, by file and line.
func (s *FileSource) Errors() []ObjectError {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.errors)
}

// Run implements Source. It fails when the directory cannot be watched.
func (s *FileSource) Run(ctx context.Context, sink Sink) error {
	if info, err := os.Stat(s.dir); err != nil {
		return fmt.Errorf("watch the configuration directory: %w", err)
	} else if !info.IsDir() {
		return fmt.Errorf("watch the configuration directory: %s is a file", s.dir)
	}
	watcher, err := fsnotify.NewBufferedWatcher(queue)
	if err != nil {
		return fmt.Errorf("watch the configuration directory %s: %w", s.dir, err)
	}
	defer watcher.Close()
	s.watcher = watcher
	s.rescan()
	s.deliver(sink)
	sink.Synced()
	return s.follow(ctx, sink)
}

// follow takes all events that are queued, then delivers what they changed as one group.
func (s *FileSource) follow(ctx context.Context, sink Sink) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for taken := 0; ; taken++ {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-s.watcher.Events:
			if !ok {
				return errors.New("watch the configuration directory: the watch ended")
			}
			s.event(e)
		case err := <-s.watcher.Errors:
			// Events were lost: look at everything.
			s.log.Warn("watching the configuration directory; reading it again", "dir", s.dir, "error", err)
			s.rescan()
		case <-timer.C:
		}
		if len(s.watcher.Events) > 0 && taken%queue != queue-1 {
			continue
		}
		timer.Reset(s.readSettled(time.Now()))
		s.deliver(sink)
	}
}

// readSettled reads the files that were left alone for long enough and returns the time until the next one is due.
func (s *FileSource) readSettled(now time.Time) time.Duration {
	next := time.Hour
	for path, due := range s.pending {
		if wait := due.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		s.read(path)
	}
	return next
}

func (s *FileSource) event(e fsnotify.Event) {
	path := filepath.Clean(e.Name)
	switch {
	case s.watched[path] && e.Has(fsnotify.Remove|fsnotify.Rename):
		s.rescan()
	case !isManifest(path):
		// A new directory, or the swap of a symlink (..data of a mounted ConfigMap) that leads to any number of files.
		if info, err := os.Lstat(path); err == nil && e.Has(fsnotify.Create) && !info.Mode().IsRegular() {
			s.rescan()
		}
	case e.Has(fsnotify.Write):
		s.pending[path] = time.Now().Add(settle)
	case e.Has(fsnotify.Create):
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			s.rescan()
		} else if err == nil && info.Size() == 0 {
			s.pending[path] = time.Now().Add(settle)
		} else {
			s.read(path)
		}
	case e.Has(fsnotify.Remove | fsnotify.Rename):
		s.read(path)
	}
}

// isManifest goes by the name; hidden files are what editors and atomic writers leave lying around.
func isManifest(path string) bool {
	if strings.HasPrefix(filepath.Base(path), ".") {
		return false
	}
	switch filepath.Ext(path) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// rescan walks everything: watches new directories, reads what is new or different, forgets what is gone.
func (s *FileSource) rescan() {
	found := map[string]bool{}
	dirs := map[string]bool{}
	s.walk(s.dir, found, dirs, map[string]bool{})
	for dir := range s.watched {
		if !dirs[dir] {
			delete(s.watched, dir)
			_ = s.watcher.Remove(dir) // it is usually gone already
		}
	}
	for _, path := range s.tree.paths() {
		if !found[path] {
			s.read(path)
		}
	}
}

// walk follows symlinks, as a mounted ConfigMap consists of them, each real directory once.
func (s *FileSource) walk(dir string, found, dirs, seen map[string]bool) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil || seen[real] {
		return
	}
	seen[real] = true
	// Watch before listing: what appears in between is reported twice rather than not at all.
	if err := s.watcher.Add(dir); err != nil {
		s.tree.unreadable(dir, fmt.Sprintf("cannot watch this directory: %v", err))
		return
	}
	s.watched[dir], dirs[dir] = true, true
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.tree.unreadable(dir, fmt.Sprintf("cannot read this directory: %v", err))
		return
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		info, err := os.Stat(path)
		switch {
		case strings.HasPrefix(entry.Name(), "."):
		case err == nil && info.IsDir():
			s.walk(path, found, dirs, seen)
		case isManifest(path) && !errors.Is(err, fs.ErrNotExist):
			found[path] = true
			s.read(path)
		}
	}
}

// read brings one file up to date.
func (s *FileSource) read(path string) {
	delete(s.pending, path)
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.tree.remove(path)
	case err != nil:
		s.tree.unreadable(path, fmt.Sprintf("cannot read this file: %v", err))
	default:
		s.tree.update(path, data)
	}
}

// deliver hands over what changed since the last time. Errors come first: whoever sees the new state finds what is wrong with it.
func (s *FileSource) deliver(sink Sink) {
	changes := s.tree.changes()
	s.report()
	for _, c := range changes {
		sink.Apply(c.gvk, c.upserts, c.deletes)
	}
	if flusher, ok := sink.(Flusher); ok && len(changes) > 0 {
		flusher.Flush()
	}
}

// report publishes what is wrong, if that changed.
func (s *FileSource) report() {
	if !s.tree.errorsChanged {
		return
	}
	s.tree.errorsChanged = false
	all := s.tree.errors()
	s.mu.Lock()
	same := slices.Equal(s.errors, all)
	s.errors = all
	s.mu.Unlock()
	if !same && s.onError != nil {
		s.onError(slices.Clone(all))
	}
}
