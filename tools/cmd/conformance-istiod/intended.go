package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

// intended is a difference that is meant to be. All expressions match as a whole; one that is not given matches everything.
type intended struct {
	// Scenario is the name of a file.
	Scenario string `json:"scenario"`
	Resource string `json:"resource"`
	Path     string `json:"path"`
	Ours     string `json:"ours"`
	Theirs   string `json:"theirs"`
	// Why it is. Documented is what docs/differences.md says of it, word for word; not needed where users cannot notice.
	Why        string `json:"why"`
	Documented string `json:"documented"`

	expressions [5]*regexp.Regexp // in the order of the fields
	used        bool
}

// loadIntended reads the table, and finds in documents what it says of them.
func loadIntended(file, documents string) ([]*intended, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	said, err := os.ReadFile(documents)
	if err != nil {
		return nil, err
	}
	out, err := parseIntended(data, string(said))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return out, nil
}

func parseIntended(data []byte, said string) ([]*intended, error) {
	var out []*intended
	if err := yaml.UnmarshalStrict(data, &out); err != nil {
		return nil, err
	}
	for _, e := range out {
		if e.Why == "" {
			return nil, errors.New("a difference without a reason")
		}
		if !strings.Contains(said, e.Documented) {
			return nil, fmt.Errorf("docs/differences.md does not say %q", e.Documented)
		}
		for i, expression := range []string{e.Scenario, e.Resource, e.Path, e.Ours, e.Theirs} {
			var err error
			if e.expressions[i], err = regexp.Compile("^(?s:" + cmp.Or(expression, ".*") + ")$"); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// find returns the entry of a difference, nil if it is not meant to be.
func find(table []*intended, scenario string, d difference) *intended {
	for _, e := range table {
		found := true
		for i, value := range []string{scenario, d.Resource, d.Path, d.Ours, d.Theirs} {
			found = found && e.expressions[i].MatchString(value)
		}
		if found {
			return e
		}
	}
	return nil
}
