package cluster

import (
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// state is what is known of the objects of one kind, and what the sink has yet to be told. It is owned by Run and does no I/O.
type state struct {
	namespaces map[string]map[string]entry // by namespace, by name
	errors     map[types.NamespacedName][]kube.ObjectError
	pending    map[types.NamespacedName]bool // whether the sink has the object
	order      []types.NamespacedName        // of pending
}

// entry is an object of the API in its last good version.
type entry struct {
	object    kube.Object
	delivered bool // the sink was told, or will be: the pending change is about this object
}

// selector tells namespaces that are delivered.
type selector func(namespace string) bool

func newState() *state {
	return &state{namespaces: map[string]map[string]entry{}, errors: map[types.NamespacedName][]kube.ObjectError{}, pending: map[types.NamespacedName]bool{}}
}

func (s *state) get(name types.NamespacedName) (entry, bool) {
	e, ok := s.namespaces[name.Namespace][name.Name]
	return e, ok
}

func (s *state) set(name types.NamespacedName, e entry) {
	names := s.namespaces[name.Namespace]
	if names == nil {
		names = map[string]entry{}
		s.namespaces[name.Namespace] = names
	}
	names[name.Name] = e
}

// touch notes that the sink has to be told, given whether it has the object at present.
func (s *state) touch(name types.NamespacedName, has bool) {
	if _, noted := s.pending[name]; !noted {
		s.pending[name] = has
		s.order = append(s.order, name)
	}
}

// put takes an object as it is in the API now. It reports whether errors changed.
func (s *state) put(p put, selected selector) (errorsChanged bool) {
	errorsChanged = s.note(p)
	if p.object == nil {
		return errorsChanged // the last good version stays
	}
	old, known := s.get(p.name)
	if known && unchanged(old.object, p.object) {
		return errorsChanged
	}
	deliver := selected(p.name.Namespace)
	if deliver || old.delivered {
		s.touch(p.name, old.delivered)
	}
	s.set(p.name, entry{object: p.object, delivered: deliver})
	return errorsChanged
}

func (s *state) note(p put) bool {
	old, had := s.errors[p.name]
	if len(p.errs) == 0 {
		delete(s.errors, p.name)
		return had
	}
	s.errors[p.name] = p.errs
	return !slices.Equal(old, p.errs)
}

// remove takes that an object is gone.
func (s *state) remove(name types.NamespacedName) (errorsChanged bool) {
	_, errorsChanged = s.errors[name]
	delete(s.errors, name)
	old, known := s.get(name)
	if !known {
		return errorsChanged
	}
	if names := s.namespaces[name.Namespace]; len(names) == 1 {
		delete(s.namespaces, name.Namespace)
	} else {
		delete(names, name.Name)
	}
	if old.delivered {
		s.touch(name, true)
	}
	return errorsChanged
}

// replace takes all objects there are: those that differ are put, those that are missing are removed.
func (s *state) replace(all []put, selected selector) (errorsChanged bool) {
	if len(s.namespaces)+len(s.errors)+len(s.order) == 0 { // the first list: nothing can be missing, and all of it is new
		s.pending, s.order = make(map[types.NamespacedName]bool, len(all)), make([]types.NamespacedName, 0, len(all))
		for _, p := range all {
			errorsChanged = s.put(p, selected) || errorsChanged
		}
		return errorsChanged
	}
	present := make(map[types.NamespacedName]bool, len(all))
	for _, p := range all {
		present[p.name] = true
		errorsChanged = s.put(p, selected) || errorsChanged
	}
	var gone []types.NamespacedName
	for namespace, names := range s.namespaces {
		for name := range names {
			if full := (types.NamespacedName{Namespace: namespace, Name: name}); !present[full] {
				gone = append(gone, full)
			}
		}
	}
	for name := range s.errors {
		if !present[name] {
			gone = append(gone, name)
		}
	}
	for _, name := range gone {
		errorsChanged = s.remove(name) || errorsChanged
	}
	return errorsChanged
}

// reselect notes the objects of namespaces that became selected or ceased to be.
func (s *state) reselect(selected selector) {
	for namespace, names := range s.namespaces {
		deliver := selected(namespace)
		for name, e := range names {
			if e.delivered == deliver {
				continue
			}
			s.touch(types.NamespacedName{Namespace: namespace, Name: name}, e.delivered)
			e.delivered = deliver
			names[name] = e
		}
	}
}

// take returns what the sink has to be told: first the upserts of objects that it does not have, added in number.
func (s *state) take() (upserts []kube.Object, deletes []types.NamespacedName, added int) {
	if len(s.order) == 0 {
		return nil, nil, 0
	}
	var updates []kube.Object
	upserts = make([]kube.Object, 0, len(s.order))
	for _, name := range s.order {
		e, _ := s.get(name)
		has := s.pending[name]
		switch {
		case e.delivered && has:
			updates = append(updates, e.object)
		case e.delivered:
			upserts = append(upserts, e.object)
		case has:
			deletes = append(deletes, name)
		}
	}
	// Clearing would cost as much as the largest batch ever.
	s.pending, s.order = map[types.NamespacedName]bool{}, nil
	return append(upserts, updates...), deletes, len(upserts)
}

// unchanged reports whether the next version of an object differs at most in what the mesh does not read. Only objects that are
// plain Go structs are compared; the messages inside of others are shared with whoever encodes them.
func unchanged(old, next kube.Object) bool {
	version := next.GetResourceVersion()
	if version != "" && old.GetResourceVersion() == version && old.GetUID() == next.GetUID() {
		return true
	}
	if isCustom(next.GetObjectKind().GroupVersionKind()) {
		return false
	}
	next.SetResourceVersion(old.GetResourceVersion())
	same := reflect.DeepEqual(old, next)
	next.SetResourceVersion(version)
	return same
}
