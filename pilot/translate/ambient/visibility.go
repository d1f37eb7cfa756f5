package ambient

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	meshapi "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

const fieldVisibility = "serviceEntryVisibility"

// Visibility is who knows of a ServiceEntry.
type Visibility int

// Visibilities; the zero value is that of a mesh that does not speak of it.
const (
	VisibleToAll       Visibility = iota // PUBLIC
	VisibleToNamespace                   // NAMESPACE: clients of its own namespace
	VisibleToNone                        // NONE: it is not published
)

// String is the reason of the condition istio.io/VisibilityApplied.
func (v Visibility) String() string {
	switch v {
	case VisibleToNamespace:
		return "Namespace"
	case VisibleToNone:
		return "None"
	case VisibleToAll:
	}
	return "Public"
}

// EntryVisibility is meshConfig.serviceEntryVisibility, compiled. It does not change. nil is a mesh without it: all is public, and
// nothing is said of it.
type EntryVisibility struct {
	source    *meshapi.ServiceEntryVisibility // decides equality
	byDefault Visibility
	policies  []visibilityPolicy
}

// visibilityPolicy holds where all of its selectors match a namespace; without any, everywhere.
type visibilityPolicy struct {
	visibility Visibility
	namespaces []labels.Selector
}

// ReadEntryVisibility reads the field from a whole mesh configuration in JSON. What is around it is not looked at. Unlike there, what
// is not known is refused: a restriction that is read by half lets through what nobody meant to. An error names the field, and what to
// write.
func ReadEntryVisibility(meshConfig []byte) (*EntryVisibility, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(meshConfig, &fields); err != nil {
		return nil, fmt.Errorf("the mesh configuration is not a list of fields: %w", err)
	}
	for _, name := range []string{fieldVisibility, "service_entry_visibility"} {
		raw := fields[name]
		if len(raw) == 0 || string(raw) == "null" {
			continue
		}
		var word string
		if json.Unmarshal(raw, &word) == nil {
			return nil, fmt.Errorf("%s: it is a message, not a word: write %s: {defaultVisibility: %s}", name, fieldVisibility, nearestVisibility(word))
		}
		m := &meshapi.ServiceEntryVisibility{}
		if err := kube.FitMessage(m, raw, name); err != nil {
			return nil, err
		}
		if err := kube.UnmarshalMessage(raw, m, protojson.UnmarshalOptions{}); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return NewEntryVisibility(m)
	}
	return nil, nil
}

// nearestVisibility is the value that a word stands for, else the strictest that is of use.
func nearestVisibility(word string) string {
	if v, ok := meshapi.ServiceEntryVisibility_Visibility_value[strings.ToUpper(word)]; ok && v > 0 {
		return strings.ToUpper(word)
	}
	return meshapi.ServiceEntryVisibility_NAMESPACE.String()
}

// NewEntryVisibility compiles the message; nil stays nil. An error names the field.
func NewEntryVisibility(m *meshapi.ServiceEntryVisibility) (*EntryVisibility, error) {
	if m == nil {
		return nil, nil
	}
	out := &EntryVisibility{source: m}
	var err error
	if out.byDefault, err = visibilityOf(m.GetDefaultVisibility(), fieldVisibility+".defaultVisibility"); err != nil {
		return nil, err
	}
	for i, from := range m.GetPolicies() {
		path := fmt.Sprintf("%s.policies[%d]", fieldVisibility, i)
		var to visibilityPolicy
		if to.visibility, err = visibilityOf(from.GetVisibility(), path+".visibility"); err != nil {
			return nil, err
		}
		for j, rule := range from.GetMatchingRules() {
			path := fmt.Sprintf("%s.matchingRules[%d]", path, j)
			if rule.GetNamespaceSelector() == nil {
				return nil, fmt.Errorf("%s: it has no matcher: give it a namespaceSelector, or take it away", path)
			}
			selector, err := metav1.LabelSelectorAsSelector(LabelSelector(rule.GetNamespaceSelector()))
			if err != nil {
				return nil, fmt.Errorf("%s.namespaceSelector: %w", path, err)
			}
			to.namespaces = append(to.namespaces, selector)
		}
		out.policies = append(out.policies, to)
	}
	return out, nil
}

func visibilityOf(v meshapi.ServiceEntryVisibility_Visibility, path string) (Visibility, error) {
	switch v {
	case meshapi.ServiceEntryVisibility_VISIBILITY_UNSPECIFIED, meshapi.ServiceEntryVisibility_PUBLIC:
		return VisibleToAll, nil
	case meshapi.ServiceEntryVisibility_NAMESPACE:
		return VisibleToNamespace, nil
	case meshapi.ServiceEntryVisibility_NONE:
		return VisibleToNone, nil
	}
	return VisibleToNone, fmt.Errorf("%s: %d is not one of PUBLIC, NAMESPACE, NONE", path, v)
}

// LabelSelector is a selector of the mesh configuration as Kubernetes has it.
func LabelSelector(from *meshapi.LabelSelector) *metav1.LabelSelector {
	to := &metav1.LabelSelector{MatchLabels: from.GetMatchLabels()}
	for _, e := range from.GetMatchExpressions() {
		to.MatchExpressions = append(to.MatchExpressions, metav1.LabelSelectorRequirement{
			Key: e.GetKey(), Operator: metav1.LabelSelectorOperator(e.GetOperator()), Values: e.GetValues(),
		})
	}
	return to
}

// Configured is whether the mesh speaks of visibility at all.
func (v *EntryVisibility) Configured() bool { return v != nil }

// Of is the visibility of the ServiceEntries of a namespace: that of the first policy which holds there, else the default. ns is nil
// when nothing is known of the namespace but its name, which every namespace has as a label.
func (v *EntryVisibility) Of(namespace string, ns *corev1.Namespace) Visibility {
	if v == nil {
		return VisibleToAll
	}
	if len(v.policies) == 0 {
		return v.byDefault
	}
	set := labels.Set{}
	if ns != nil {
		maps.Copy(set, ns.Labels)
	}
	set[corev1.LabelMetadataName] = namespace
	for _, p := range v.policies {
		if p.holds(set) {
			return p.visibility
		}
	}
	return v.byDefault
}

func (p visibilityPolicy) holds(set labels.Set) bool {
	for _, s := range p.namespaces {
		if !s.Matches(set) {
			return false
		}
	}
	return true
}

// EveryProxy is whether gateways and clients of gRPC keep to it, too, and not only ztunnels and waypoints.
func (v *EntryVisibility) EveryProxy() bool { return v != nil && v.source.GetApplyToSidecars() }

// Equal reports whether both say the same.
func (v *EntryVisibility) Equal(o *EntryVisibility) bool {
	if v == nil || o == nil {
		return v == o
	}
	return v == o || proto.Equal(v.source, o.source)
}
