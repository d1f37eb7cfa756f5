package why

import (
	"encoding/json"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// condition is something that an object's status says is not as it should be.
type condition struct{ Type, Reason, Message string }

// faults are the conditions of an object that say no, and what the translation for proxies did not like about it.
func (m *Model) faults(kind, namespace, name string) []condition {
	if m.statuses == nil {
		m.statuses = map[string][]condition{}
		for _, s := range m.Mesh.Statuses() {
			kind := s.Kind
			if kind == "Gateway" && s.Group == "networking.istio.io" {
				kind = "Gateway.networking.istio.io"
			}
			if found := failing(s.Content); len(found) > 0 {
				m.statuses[key(kind, s.Namespace, s.Name)] = found
			}
		}
		for of, problems := range m.Mesh.Problems() {
			for _, p := range problems {
				told := slices.ContainsFunc(m.statuses[of], func(c condition) bool { return strings.Contains(c.Message, p) })
				if !told {
					m.statuses[of] = append(m.statuses[of], condition{Type: "Translated", Message: p})
				}
			}
		}
	}
	return m.statuses[key(kind, namespace, name)]
}

// failing reads conditions, also those by parent and by listener.
func failing(content json.RawMessage) (out []condition) {
	var status struct {
		Conditions []metav1.Condition `json:"conditions"`
		Parents    []struct {
			Conditions []metav1.Condition `json:"conditions"`
		} `json:"parents"`
		Listeners []struct {
			Name       string             `json:"name"`
			Conditions []metav1.Condition `json:"conditions"`
		} `json:"listeners"`
	}
	if json.Unmarshal(content, &status) != nil {
		return nil
	}
	add := func(conditions []metav1.Condition) {
		for _, c := range conditions {
			bad := c.Status == metav1.ConditionFalse
			if c.Type == "Conflicted" || c.Type == "OverlappingTLSConfig" {
				bad = c.Status == metav1.ConditionTrue
			}
			next := condition{c.Type, c.Reason, c.Message}
			if bad && !containsCondition(out, next) {
				out = append(out, next)
			}
		}
	}
	add(status.Conditions)
	for _, p := range status.Parents {
		add(p.Conditions)
	}
	for _, l := range status.Listeners {
		add(l.Conditions)
	}
	return out
}

func containsCondition(list []condition, c condition) bool {
	for _, have := range list {
		if have == c || have.Type == c.Type && have.Message == c.Message {
			return true
		}
	}
	return false
}

func describe(list []condition) string {
	var out []string
	for _, c := range list {
		text := c.Message
		if c.Reason != "" {
			text = c.Reason + ": " + c.Message
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}
