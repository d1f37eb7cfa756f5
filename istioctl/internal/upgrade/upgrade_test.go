package upgrade

import (
	"os"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestDocumented: every difference of the list is told of in the documentation, in these words.
func TestDocumented(t *testing.T) {
	t.Parallel()
	var docs strings.Builder
	for _, file := range []string{"differences.md", "roadmap.md", "../README.md"} {
		data, err := os.ReadFile("../../../docs/" + file)
		if err != nil {
			t.Fatal(err)
		}
		docs.Write(data)
	}
	all, err := Changes()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if c.Differs != "" && !strings.Contains(strings.ToLower(docs.String()), strings.ToLower(c.Differs)) {
			t.Errorf("%s: the documentation does not have %q", c.ID, c.Differs)
		}
	}
}

// TestMatch asks each change of a list about objects: the file has, of each, the changes that concern it when one comes from 1.19, with the
// fields.
func TestMatch(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/objects.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all, err := Changes()
	if err != nil {
		t.Fatal(err)
	}
	met := map[string]bool{}
	for i, doc := range strings.Split(string(data), "\n---\n") {
		var want, got []string
		for line := range strings.SplitSeq(doc, "\n") {
			if text, ok := strings.CutPrefix(line, "# wants: "); ok {
				want = append(want, text)
			}
		}
		var object map[string]any
		if err := yaml.Unmarshal([]byte(doc), &object); err != nil {
			t.Fatal(i, err)
		}
		kind, _ := object["kind"].(string)
		if version, _ := object["apiVersion"].(string); strings.Contains(version, "/") {
			group, _, _ := strings.Cut(version, "/")
			kind += "." + group
		}
		for j := range all {
			if all[j].Kind != kind {
				continue
			}
			if field, ok := all[j].Match(object); ok {
				got = append(got, strings.TrimSpace(all[j].ID+" "+field))
				met[all[j].Kind+all[j].Says] = true
			}
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("document %d: got\n  %s\nwant\n  %s", i, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
	}
	for _, c := range all {
		if !met[c.Kind+c.Says] {
			t.Errorf("no object of the test is one that %s (%s: %s) is about", c.ID, c.Kind, c.Says)
		}
	}
}

func TestParseVersion(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"1.24": 24, "1.24.3": 24, "v1.30.0-rc.1": 30, " 1.19 ": 19} {
		if got, err := ParseVersion(text); err != nil || got != want {
			t.Errorf("%q: %d %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"": "is no version", "latest": "is no version", "2.1": "is no version of Istio", "1.x": "is no version of Istio", "1.24.x": "is no version of Istio",
		"1.18": "too old", "1.99": "is not known to this program", "1.-3": "is no version of Istio",
	} {
		if _, err := ParseVersion(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestConcerns(t *testing.T) {
	t.Parallel()
	all, err := parse([]byte("- {id: a, since: '1.24', kind: K, says: x}\n- {id: b, differs: y, kind: K, says: x}"))
	if err != nil {
		t.Fatal(err)
	}
	for from, want := range map[int]bool{23: true, 24: false, 30: false} {
		if all[0].Concerns(from) != want || !all[1].Concerns(from) {
			t.Error(from)
		}
	}
	for _, bad := range []string{"- {id: a}", "- {id: a, kind: K, says: x}", "- {id: a, kind: K, says: x, since: '9.9'}", "- {id: a, kind: K, says: x, differs: y, when: [{path: a, value: '('}]}", "- {x: 1}"} {
		if _, err := parse([]byte(bad)); err == nil {
			t.Errorf("%s: taken", bad)
		}
	}
}
