package analysis

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Message is one finding.
type Message struct {
	Code Code
	// Level and Text follow from the code.
	Level Level
	Text  string
	// Resource it is about; nil when it is about none.
	Resource *Resource
	// Field of the resource, such as spec.http[0].route[1].destination.host; empty when it is about the whole.
	Field string
}

// Messages are findings.
type Messages []Message

// Add adds a finding. args are those of the code's template.
func (m *Messages) Add(code Code, r *Resource, field string, args ...any) {
	e, _ := code.Entry()
	*m = append(*m, Message{Code: code, Level: e.Level, Text: fmt.Sprintf(e.Template, args...), Resource: r, Field: field})
}

// String is the line that people read.
func (m Message) String() string { return m.line(m.Level.String()) }

// Colored is String with the level in color.
func (m Message) Colored() string {
	switch m.Level {
	case Error:
		return m.line("\x1b[1;31mError\x1b[0m")
	case Warning:
		return m.line("\x1b[33mWarning\x1b[0m")
	}
	return m.line("Info\x1b[0m")
}

func (m Message) line(level string) string {
	origin := ""
	if m.Resource != nil {
		origin = " (" + strings.TrimSpace(m.Resource.String()+" "+m.Reference()) + ")"
	}
	return fmt.Sprintf("%s [%s]%s %s", level, m.Code, origin, m.Text)
}

// Reference is file:line of the field, empty for an object of a mesh.
func (m Message) Reference() string {
	if m.Resource == nil || m.Resource.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", m.Resource.File, m.Resource.Line(m.Field))
}

// MarshalJSON gives the object that tools read.
func (m Message) MarshalJSON() ([]byte, error) {
	out := map[string]string{"code": string(m.Code), "level": m.Level.String(), "message": m.Text, "documentationUrl": m.Code.documentation()}
	if m.Resource != nil {
		out["origin"] = m.Resource.String()
		if reference := m.Reference(); reference != "" {
			out["reference"] = reference
		}
	}
	return json.Marshal(out)
}

func (c Code) documentation() string {
	if strings.HasPrefix(string(c), "IST") {
		return "https://istio.io/latest/docs/reference/config/analysis/" + strings.ToLower(string(c)) + "/?ref=istioctl-analyze"
	}
	return "https://github.com/isthmus-mesh/isthmus/blob/main/docs/analyze.md#" + strings.ToLower(string(c))
}

// Sorted returns the findings without repetitions, the worst first.
func (m Messages) Sorted() Messages {
	out := slices.Clone(m)
	if out == nil {
		out = Messages{}
	}
	origin := func(m Message) string {
		if m.Resource == nil {
			return ""
		}
		return m.Resource.String()
	}
	compare := func(a, b Message) int {
		return cmp.Or(cmp.Compare(b.Level, a.Level), cmp.Compare(a.Code, b.Code), cmp.Compare(origin(a), origin(b)), cmp.Compare(a.Text, b.Text), cmp.Compare(a.Reference(), b.Reference()))
	}
	slices.SortFunc(out, compare)
	return slices.CompactFunc(out, func(a, b Message) bool { return compare(a, b) == 0 })
}

// Worst returns those of at least a level.
func (m Messages) Worst(least Level) Messages {
	out := Messages{}
	for _, one := range m {
		if one.Level >= least {
			out = append(out, one)
		}
	}
	return out
}
