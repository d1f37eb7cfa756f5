package kube

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// objectKey identifies an object among all files.
type objectKey struct {
	gvk  schema.GroupVersionKind
	name types.NamespacedName
}

// tree is the state of a directory of manifests: which file declares what, and which declaration counts. It does no I/O.
type tree struct {
	files         map[string]*manifest
	declared      map[objectKey]map[string]bool // files that declare the object
	delivered     map[objectKey]Object
	dirty         map[objectKey]bool
	errorsChanged bool
}

// manifest is one file.
type manifest struct {
	data    []byte // as last read, to skip files that were only touched
	objects map[objectKey]Decoded
	errs    []ObjectError
}

func newTree() *tree {
	return &tree{files: map[string]*manifest{}, declared: map[objectKey]map[string]bool{}, delivered: map[objectKey]Object{}, dirty: map[objectKey]bool{}}
}

func (t *tree) paths() []string { return slices.Collect(maps.Keys(t.files)) }

// update takes a file's new content. An object that became bad keeps its last good version. When a document cannot be
// attributed to an object, it may be any of those that the file declared before, and all that are missing are kept.
func (t *tree) update(path string, data []byte) {
	old := t.files[path]
	if old != nil && old.data != nil && bytes.Equal(old.data, data) {
		return
	}
	next := &manifest{data: data, objects: map[objectKey]Decoded{}}
	decoded, errs := Decode(path, data)
	next.errs = errs
	bad := map[types.NamespacedName]map[string]bool{} // name → kinds
	keepAll := false
	for _, e := range errs {
		if e.Name == "" && !e.Warning {
			keepAll = true
		}
		markBad(bad, e)
	}
	for _, d := range decoded {
		d.Manifest = nil // nobody asks for it here, and the objects stay
		key := objectKey{d.GVK, d.Name()}
		if first, twice := next.objects[key]; twice {
			next.errs = append(next.errs, errorAt(d, "", fmt.Sprintf("declared before at %s:%d, which counts", first.File, first.Line)))
			continue
		}
		fatal := false
		for _, e := range Validate(d.Object) {
			e.File, e.Line = d.File, d.Line
			next.errs = append(next.errs, e)
			fatal = fatal || !e.Warning
			markBad(bad, e)
		}
		if !fatal {
			next.objects[key] = d
		}
	}
	if old != nil {
		for key, d := range old.objects {
			if _, present := next.objects[key]; !present && (keepAll || bad[key.name][key.gvk.Kind]) {
				next.objects[key] = d
			}
		}
	}
	t.replace(path, old, next)
}

func markBad(bad map[types.NamespacedName]map[string]bool, e ObjectError) {
	if e.Warning {
		return
	}
	name := types.NamespacedName{Namespace: e.Namespace, Name: e.Name}
	if bad[name] == nil {
		bad[name] = map[string]bool{}
	}
	bad[name][e.Kind] = true
}

func errorAt(d Decoded, field, reason string) ObjectError {
	return ObjectError{File: d.File, Line: d.Line, Kind: d.GVK.Kind, Namespace: d.Object.GetNamespace(), Name: d.Object.GetName(), Field: field, Reason: reason}
}

// unreadable keeps what the path declared and reports the reason.
func (t *tree) unreadable(path, reason string) {
	old := t.files[path]
	next := &manifest{objects: map[objectKey]Decoded{}, errs: []ObjectError{{File: path, Reason: reason}}}
	if old != nil {
		next.objects = old.objects
	}
	t.replace(path, old, next)
}

func (t *tree) remove(path string) {
	if old := t.files[path]; old != nil {
		t.replace(path, old, nil)
	}
}

// replace is the only writer of files and declared.
func (t *tree) replace(path string, old, next *manifest) {
	if old != nil {
		for key := range old.objects {
			t.dirty[key] = true
			if delete(t.declared[key], path); len(t.declared[key]) == 0 {
				delete(t.declared, key)
			}
		}
		t.errorsChanged = t.errorsChanged || len(old.errs) > 0
	}
	delete(t.files, path)
	if next == nil {
		return
	}
	t.files[path] = next
	t.errorsChanged = t.errorsChanged || len(next.errs) > 0
	for key := range next.objects {
		t.dirty[key] = true
		if t.declared[key] == nil {
			t.declared[key] = map[string]bool{}
		}
		t.declared[key][path] = true
	}
}

// change is what to tell a Sink about one kind.
type change struct {
	gvk     schema.GroupVersionKind
	upserts []Object
	deletes []types.NamespacedName
}

// changes returns what differs from what was returned before, kinds in the order of the table, objects by name.
func (t *tree) changes() []change {
	byKind := map[schema.GroupVersionKind]*change{}
	keys := slices.SortedFunc(maps.Keys(t.dirty), func(a, b objectKey) int {
		return cmp.Or(cmp.Compare(a.name.Namespace, b.name.Namespace), cmp.Compare(a.name.Name, b.name.Name))
	})
	for _, key := range keys {
		c := byKind[key.gvk]
		if c == nil {
			c = &change{gvk: key.gvk}
			byKind[key.gvk] = c
		}
		if len(t.declared[key]) > 1 {
			t.errorsChanged = true
		}
		before, winner := t.delivered[key], t.winner(key)
		switch {
		case winner == nil && before != nil:
			c.deletes = append(c.deletes, key.name)
			delete(t.delivered, key)
		case winner != nil && winner != before:
			c.upserts = append(c.upserts, winner)
			t.delivered[key] = winner
		}
	}
	t.dirty = map[objectKey]bool{} // clearing would cost as much as the largest batch ever
	var out []change
	for _, k := range kinds() {
		if c := byKind[k.gvk]; c != nil && len(c.upserts)+len(c.deletes) > 0 {
			out = append(out, *c)
		}
	}
	return out
}

// winner is the declaration in the file whose path sorts first, or nil.
func (t *tree) winner(key objectKey) Object {
	files := t.declared[key]
	if len(files) == 0 {
		return nil
	}
	first := slices.Min(slices.Collect(maps.Keys(files)))
	return t.files[first].objects[key].Object
}

// errors returns all errors, and those of objects declared in several files, by file and line.
func (t *tree) errors() []ObjectError {
	var all []ObjectError
	for _, m := range t.files {
		all = append(all, m.errs...)
	}
	for key, files := range t.declared {
		if len(files) < 2 {
			continue
		}
		sorted := slices.Sorted(maps.Keys(files))
		for _, path := range sorted[1:] {
			e := errorAt(t.files[path].objects[key], "", fmt.Sprintf("also declared in %s, which counts because its path sorts first", sorted[0]))
			e.Warning = true
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b ObjectError) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Kind, b.Kind),
			cmp.Compare(a.Name, b.Name), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Reason, b.Reason))
	})
	return all
}
