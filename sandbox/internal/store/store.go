// Package store keeps the sandbox's objects, and mirrors them into the directory that the control plane and the node
// agents watch. It stands in for the API server's storage.
package store

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/manifest"
)

// Key names an object. Group tells apart kinds of one name, such as the two Gateways.
type Key struct{ Group, Kind, Namespace, Name string }

// KeyOf returns the key of an object whose kind is set.
func KeyOf(obj manifest.Object) Key {
	gvk := obj.GetObjectKind().GroupVersionKind()
	return Key{gvk.Group, gvk.Kind, obj.GetNamespace(), obj.GetName()}
}

// Store holds objects. Objects that it returns are never changed; objects given to it must not be changed any more.
type Store struct {
	dir     string
	changed func()

	mu      sync.Mutex // guards the rest, and the order of writes to the directory
	objects map[Key]manifest.Object
	written map[Key][]byte
}

// New returns a store that writes below dir and calls changed, which must not block, after each change.
func New(dir string, changed func()) *Store {
	return &Store{dir: dir, changed: changed, objects: map[Key]manifest.Object{}, written: map[Key][]byte{}}
}

// Get returns an object.
func (s *Store) Get(key Key) (manifest.Object, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	obj, ok := s.objects[key]
	return obj, ok
}

// All returns every object, ordered by key.
func (s *Store) All() []manifest.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]manifest.Object, 0, len(s.objects))
	for _, obj := range s.objects {
		all = append(all, obj)
	}
	slices.SortFunc(all, func(a, b manifest.Object) int { return compare(KeyOf(a), KeyOf(b)) })
	return all
}

func compare(a, b Key) int {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Group, b.Group),
		strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// List returns the objects of type T.
func List[T manifest.Object](s *Store) []T {
	var list []T
	for _, obj := range s.All() {
		if one, ok := obj.(T); ok {
			list = append(list, one)
		}
	}
	return list
}

// Put stores an object. Its UID and creation time are those of the object it replaces.
func (s *Store) Put(obj manifest.Object) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.put(obj)
}

func (s *Store) put(obj manifest.Object) error {
	key := KeyOf(obj)
	if old, ok := s.objects[key]; ok {
		obj.SetUID(old.GetUID())
		obj.SetCreationTimestamp(old.GetCreationTimestamp())
	}
	if obj.GetUID() == "" {
		obj.SetUID(uuid.NewUUID())
	}
	if created := obj.GetCreationTimestamp(); created.IsZero() {
		obj.SetCreationTimestamp(metav1.NewTime(time.Now().Truncate(time.Second)))
	}
	data, err := manifest.Encode(obj)
	if err != nil {
		return err
	}
	path, err := s.path(key)
	if err != nil {
		return err
	}
	if svc, ok := obj.(*corev1.Service); ok {
		if err := s.clash(svc); err != nil {
			return err
		}
	}
	if bytes.Equal(data, s.written[key]) {
		s.objects[key] = obj
		return nil
	}
	mode := os.FileMode(0o644)
	if key.Kind == "Secret" {
		mode = 0o600
	}
	if err := writeAtomically(path, data, mode); err != nil {
		return fmt.Errorf("store %s %s/%s: %w", key.Kind, key.Namespace, key.Name, err)
	}
	s.objects[key], s.written[key] = obj, data
	s.changed()
	return nil
}

// Modify changes a copy of the object under key and stores that. It does nothing if there is none, or if it is not the
// object with the given UID any more.
func Modify[T manifest.Object](s *Store, key Key, uid types.UID, change func(T)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.objects[key]
	if !ok || uid != "" && old.GetUID() != uid {
		return nil
	}
	obj, ok := old.DeepCopyObject().(T)
	if !ok {
		return fmt.Errorf("%s %s/%s is a %T", key.Kind, key.Namespace, key.Name, old)
	}
	change(obj)
	return s.put(obj)
}

// Delete removes an object and says whether it was there.
func (s *Store) Delete(key Key) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[key]; !ok {
		return false, nil
	}
	path, err := s.path(key)
	if err != nil {
		return true, err
	}
	delete(s.objects, key)
	delete(s.written, key)
	s.changed()
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return true, fmt.Errorf("delete %s %s/%s: %w", key.Kind, key.Namespace, key.Name, err)
	}
	return true, nil
}

// path separates what the sandbox writes itself, or completes, from what is only the user's. No part of a key may lead to
// another directory: the manifests' reader refuses such names already, but objects come from elsewhere too.
func (s *Store) path(key Key) (string, error) {
	for _, part := range []struct{ field, value string }{
		{"group", key.Group}, {"kind", key.Kind}, {"metadata.namespace", key.Namespace}, {"metadata.name", key.Name},
	} {
		if part.value == "." || part.value == ".." || strings.ContainsAny(part.value, "/\x00") {
			return "", fmt.Errorf("store %s %s/%s: %s: %q cannot be part of a file's name: choose another",
				key.Kind, key.Namespace, key.Name, part.field, part.value)
		}
	}
	kind := strings.ToLower(key.Kind)
	switch key.Group + "/" + key.Kind {
	case "/Pod", "/Service", "/Namespace", "/Node", "/ServiceAccount", "discovery.k8s.io/EndpointSlice":
		return filepath.Join(s.dir, "system", kind, key.Namespace, key.Name+".yaml"), nil
	}
	if key.Group != "" {
		kind += "." + key.Group
	}
	return filepath.Join(s.dir, "user", kind+"_"+key.Namespace+"_"+key.Name+".yaml"), nil
}

func writeAtomically(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// The name does not end in .yaml, so that watchers pass over it.
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(temporary, data, mode); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
