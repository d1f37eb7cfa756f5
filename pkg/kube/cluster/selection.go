package cluster

import (
	"maps"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// selection knows which namespaces are part of the mesh. It is owned by Run.
type selection struct {
	choose     func() []labels.Selector // nil is all
	selectors  []labels.Selector
	namespaces map[string]map[string]string // labels, by name
}

// read asks for the selectors.
func (s *selection) read() {
	if s.choose != nil {
		s.selectors = s.choose()
	}
}

// has is true for the empty name, that of objects without a namespace.
func (s *selection) has(namespace string) bool {
	if len(s.selectors) == 0 || namespace == "" {
		return true
	}
	set, known := s.namespaces[namespace]
	if !known {
		return false
	}
	for _, selector := range s.selectors {
		if selector.Matches(labels.Set(set)) {
			return true
		}
	}
	return false
}

// put takes a namespace and reports whether it may be selected otherwise than before.
func (s *selection) put(o kube.Object) bool {
	if s.choose == nil || o == nil {
		return false
	}
	old, known := s.namespaces[o.GetName()]
	if known && maps.Equal(old, o.GetLabels()) {
		return false
	}
	if s.namespaces == nil {
		s.namespaces = map[string]map[string]string{}
	}
	s.namespaces[o.GetName()] = o.GetLabels()
	return true
}

// remove is put for a namespace that is gone.
func (s *selection) remove(name string) bool {
	_, known := s.namespaces[name]
	delete(s.namespaces, name)
	return known
}

// replace is put for all namespaces there are.
func (s *selection) replace(all []put) bool {
	old := s.namespaces
	s.namespaces = map[string]map[string]string{}
	if s.choose == nil {
		return false
	}
	for _, p := range all {
		s.namespaces[p.name.Name] = p.object.GetLabels()
	}
	return !maps.EqualFunc(old, s.namespaces, maps.Equal[map[string]string])
}
