package analysis

import (
	"fmt"
	"slices"
	"strings"
)

// annotationSuppress lists codes that are not to be reported of an object; * is all.
const annotationSuppress = "galley.istio.io/analyze-suppress"

// Suppression silences a code for the objects whose name matches.
type Suppression struct {
	Code Code
	// Object is Kind name.namespace, in which * stands for anything.
	Object string
}

// ParseSuppression reads CODE=OBJECT.
func ParseSuppression(text string) (Suppression, error) {
	code, object, ok := strings.Cut(text, "=")
	if !ok || code == "" || object == "" || strings.Contains(object, "=") {
		return Suppression{}, fmt.Errorf("%s is not a valid suppression value: use CODE=RESOURCE, as in \"IST0102=Namespace default\" or \"IST0103=Pod *.testing\"", text)
	}
	return Suppression{Code: Code(code), Object: object}, nil
}

func (s Suppression) silences(m Message) bool {
	if s.Code != m.Code || m.Resource == nil {
		return false
	}
	r := m.Resource
	if r.Namespace == "" {
		return glob(s.Object, r.Kind+" "+r.Name)
	}
	return glob(s.Object, r.Kind+" "+r.Name+"."+r.Namespace) || glob(s.Object, r.String())
}

// Unsuppressed returns the findings that neither a suppression nor an annotation silences.
func (m Messages) Unsuppressed(suppressions []Suppression) Messages {
	out := Messages{}
next:
	for _, one := range m {
		for _, s := range suppressions {
			if s.silences(one) {
				continue next
			}
		}
		if one.Resource != nil && one.Resource.Object != nil {
			for code := range strings.SplitSeq(one.Resource.Object.GetAnnotations()[annotationSuppress], ",") {
				if code = strings.TrimSpace(code); code == "*" || Code(code) == one.Code {
					continue next
				}
			}
		}
		out = append(out, one)
	}
	return out
}

// Of returns the findings about objects of a namespace, about those of no namespace, and about those of files.
func (m Messages) Of(namespace string) Messages {
	out := Messages{}
	for _, one := range m {
		r := one.Resource
		switch {
		case r == nil, r.File != "", r.Namespace == namespace:
		case r.Namespace != "", r.Kind == "Namespace" && r.Name != namespace:
			continue
		}
		out = append(out, one)
	}
	return out
}

// glob matches a pattern in which * is any text.
func glob(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	if !strings.HasPrefix(text, parts[0]) {
		return false
	}
	text = text[len(parts[0]):]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return strings.HasSuffix(text, parts[len(parts)-1])
}

// Without returns the findings about objects that are in none of the namespaces.
func (m Messages) Without(namespaces []string) Messages {
	return slices.DeleteFunc(slices.Clone(m), func(one Message) bool {
		r := one.Resource
		return r != nil && (slices.Contains(namespaces, r.Namespace) || r.Kind == "Namespace" && slices.Contains(namespaces, r.Name))
	})
}
