// Package upgrade tells what is otherwise in this mesh than in the version of Istio that somebody comes from, as far as it concerns the
// objects that there are.
package upgrade

import (
	_ "embed"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// The minor versions of Istio 1.x from which the list of changes has been kept.
const (
	oldest = 19
	newest = 32
)

//go:embed changes.yaml
var list []byte

// Condition is about one field of an object.
type Condition struct {
	// Path of the field: names that are parted by dots, keys of maps with dots in brackets, [] for every item of a list, [*] for every
	// value of a map.
	Path string `json:"path"`
	// Value is a regular expression for the whole of it; empty is any.
	Value string `json:"value,omitempty"`
	// Absent is whether there must be none.
	Absent bool `json:"absent,omitempty"`

	value *regexp.Regexp
	path  []string
}

// Change is something that is otherwise.
type Change struct {
	// ID is what it is called.
	ID string `json:"id"`
	// Since is the version of Istio that has brought it; empty for a difference of this mesh from every Istio, of which Differs is what the
	// documentation has.
	Since   string `json:"since,omitempty"`
	Differs string `json:"differs,omitempty"`
	// Kind of the objects that it concerns: Kind.group.
	Kind string `json:"kind"`
	// When are the conditions, all of which must hold.
	When   []Condition `json:"when,omitempty"`
	Says   string      `json:"says"`
	Remedy string      `json:"remedy,omitempty"`

	since int
}

// Changes reads the list.
func Changes() ([]Change, error) { return parse(list) }

func parse(data []byte) ([]Change, error) {
	var out []Change
	if err := yaml.UnmarshalStrict(data, &out); err != nil {
		return nil, fmt.Errorf("the list of changes: %w", err)
	}
	for i := range out {
		c := &out[i]
		if c.ID == "" || c.Kind == "" || c.Says == "" || (c.Since == "") == (c.Differs == "") {
			return nil, fmt.Errorf("the list of changes: entry %d (%s) lacks id, kind, says, or one of since and differs", i+1, c.ID)
		}
		if c.Since != "" {
			v, err := ParseVersion(c.Since)
			if err != nil {
				return nil, fmt.Errorf("the list of changes: %s: %w", c.ID, err)
			}
			c.since = v
		}
		for j := range c.When {
			w := &c.When[j]
			w.path = splitPath(w.Path)
			if w.Value == "" {
				continue
			}
			re, err := regexp.Compile("^(?:" + w.Value + ")$")
			if err != nil {
				return nil, fmt.Errorf("the list of changes: %s: %w", c.ID, err)
			}
			w.value = re
		}
	}
	return out, nil
}

// ParseVersion reads a version of Istio, such as 1.24 or 1.24.3, and returns its minor. The error names what can be compared.
func ParseVersion(text string) (int, error) {
	major, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(text), "v"), ".")
	if !ok {
		return 0, fmt.Errorf("%q is no version: write it as 1.%d or 1.%d.3", text, newest, newest)
	}
	digits, patch, dotted := strings.Cut(rest, ".")
	minor, err := strconv.Atoi(digits)
	if _, bad := strconv.Atoi(strings.SplitN(patch, "-", 2)[0]); err != nil || major != "1" || minor < 0 || dotted && bad != nil {
		return 0, fmt.Errorf("%q is no version of Istio: write it as 1.%d or 1.%d.3", text, newest, newest)
	}
	switch {
	case minor < oldest:
		return 0, fmt.Errorf("version %s is too old: what has changed is known since 1.%d; upgrade to that first, one minor version at a time", text, oldest)
	case minor > newest:
		return 0, fmt.Errorf("version %s is not known to this program, which compares with 1.%d to 1.%d", text, oldest, newest)
	}
	return minor, nil
}

// Concerns is whether somebody who comes from a version is to be told.
func (c *Change) Concerns(from int) bool { return c.Since == "" || from < c.since }

// splitPath parts a path at its dots; what is in brackets stays whole.
func splitPath(path string) (out []string) {
	for path != "" {
		switch i := strings.IndexAny(path, ".["); {
		case i < 0:
			return append(out, path)
		case i > 0:
			out = append(out, path[:i])
			path = path[i:]
		case path[0] == '.':
			path = path[1:]
		default:
			end := strings.IndexByte(path, ']')
			out = append(out, path[:end+1])
			path = path[end+1:]
		}
	}
	return out
}
