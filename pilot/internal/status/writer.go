// Package status keeps what became of each object: for people at a debug endpoint, and as a file per object where there is no
// Kubernetes API to write it to.
package status

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
)

// Document is an object with nothing but its status.
type Document struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   Metadata `json:"metadata"`
	Status     any      `json:"status"`
}

// Metadata names the object.
type Metadata struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace,omitempty"`
}

// Writer keeps documents and writes them to files.
type Writer struct {
	// immutable
	dir string // empty: no files
	log *slog.Logger
	now func() time.Time

	wake chan struct{} // holds one token: something is queued

	mu        sync.Mutex
	queued    map[string]registry.Status // guarded by mu: not taken up yet
	documents map[string]Document        // guarded by mu
}

// New returns a writer that knows nothing. Without a directory it writes no files.
func New(dir string, log *slog.Logger, now func() time.Time) *Writer {
	return &Writer{dir: dir, log: log, now: now, wake: make(chan struct{}, 1), queued: map[string]registry.Status{}, documents: map[string]Document{}}
}

// Changed takes new statuses; one without content is of an object that has none any more. It does not block.
func (w *Writer) Changed(statuses []registry.Status) {
	w.mu.Lock()
	for _, s := range statuses {
		w.queued[s.Key()] = s
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Documents are those of all objects, by kind and name.
func (w *Writer) Documents() []Document {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.SortedFunc(maps.Values(w.documents), func(a, b Document) int {
		return cmp.Or(cmp.Compare(a.APIVersion, b.APIVersion), cmp.Compare(a.Kind, b.Kind),
			cmp.Compare(a.Metadata.Namespace, b.Metadata.Namespace), cmp.Compare(a.Metadata.Name, b.Metadata.Name))
	})
}

// Run works until ctx ends. What is not written because of an error is written with the object's next change.
func (w *Writer) Run(ctx context.Context) error {
	if w.dir != "" {
		if err := os.MkdirAll(w.dir, 0o755); err != nil {
			return fmt.Errorf("make the directory of statuses: %w", err)
		}
	}
	first := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		w.mu.Lock()
		queued := w.queued
		w.queued = map[string]registry.Status{}
		w.mu.Unlock()
		for _, key := range slices.Sorted(maps.Keys(queued)) {
			if err := w.take(key, queued[key]); err != nil {
				w.log.Error("write the status of an object", "object", key, "error", err)
			}
		}
		if first && w.dir != "" {
			first = false
			if err := w.sweep(); err != nil {
				w.log.Error("remove the statuses of objects that are gone", "error", err)
			}
		}
	}
}

func (w *Writer) take(key string, s registry.Status) error {
	path := w.path(s)
	if s.Content == nil {
		w.mu.Lock()
		delete(w.documents, key)
		w.mu.Unlock()
		if w.dir == "" {
			return nil
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	var status any
	if err := json.Unmarshal(s.Content, &status); err != nil {
		return fmt.Errorf("read the status: %w", err)
	}
	w.mu.Lock()
	before, known := w.documents[key]
	w.mu.Unlock()
	if !known && w.dir != "" {
		before = readDocument(path)
	}
	keepTimes(status, before.Status, w.now().UTC().Format(time.RFC3339))
	doc := Document{APIVersion: s.Version, Kind: s.Kind, Metadata: Metadata{Name: s.Name, Namespace: s.Namespace}, Status: status}
	if s.Group != "" {
		doc.APIVersion = s.Group + "/" + s.Version
	}
	w.mu.Lock()
	w.documents[key] = doc
	w.mu.Unlock()
	if w.dir == "" {
		return nil
	}
	return writeFile(path, doc)
}

// path is <kind>[.<group>]/<namespace>/<name>.json in the directory, of what has no namespace without it.
func (w *Writer) path(s registry.Status) string {
	kind := strings.ToLower(s.Kind)
	if s.Group != "" {
		kind += "." + s.Group
	}
	return filepath.Join(w.dir, kind, s.Namespace, s.Name+".json")
}

func readDocument(path string) (doc Document) {
	if data, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(data, &doc) // what cannot be read is written anew
	}
	return doc
}

// writeFile replaces the file as a whole: nobody ever reads half of one.
func writeFile(path string, doc Document) error {
	data, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".status-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(data, '\n'))
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}

// sweep removes files of objects that went while nobody was looking.
func (w *Writer) sweep() error {
	w.mu.Lock()
	known := map[string]bool{}
	for _, d := range w.documents {
		kind, group := strings.ToLower(d.Kind), ""
		if at := strings.IndexByte(d.APIVersion, '/'); at >= 0 {
			group = "." + d.APIVersion[:at]
		}
		known[filepath.Join(w.dir, kind+group, d.Metadata.Namespace, d.Metadata.Name+".json")] = true
	}
	w.mu.Unlock()
	return filepath.WalkDir(w.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || known[path] || filepath.Ext(path) != ".json" && !strings.HasPrefix(e.Name(), ".status-") {
			return err
		}
		return os.Remove(path)
	})
}

// keepTimes sets the time at which each condition became what it is: the one of before, unless its status was another one.
func keepTimes(now, before any, at string) {
	switch v := now.(type) {
	case map[string]any:
		old, _ := before.(map[string]any)
		if _, ok := v["lastTransitionTime"]; ok {
			v["lastTransitionTime"] = at
			if old["status"] == v["status"] && old["lastTransitionTime"] != nil {
				v["lastTransitionTime"] = old["lastTransitionTime"]
			}
			return
		}
		for k, child := range v {
			keepTimes(child, old[k], at)
		}
	case []any:
		old, _ := before.([]any)
		for i, child := range v {
			keepTimes(child, counterpart(child, i, old), at)
		}
	}
}

// counterpart finds in a list the element that is the same thing: by type, by name, else by place.
func counterpart(of any, i int, in []any) any {
	v, _ := of.(map[string]any)
	for _, key := range []string{"type", "name"} {
		if id, ok := v[key]; ok {
			for _, o := range in {
				if m, _ := o.(map[string]any); m[key] == id {
					return o
				}
			}
			return nil
		}
	}
	if i < len(in) {
		return in[i]
	}
	return nil
}
