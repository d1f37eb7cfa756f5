package why

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/pilot/simulate"
)

// TestScenarios asks about meshes in which something is wrong, each in a file of testdata/scenarios with what is to be said about it:
// the outcome, words of the cause, and every line that ends in "<- here".
func TestScenarios(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/scenarios/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			scenario(t, file)
		})
	}
}

func scenario(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	q := Question{Namespace: "shop"}
	var outcome string
	var want []string
	files := []string{file}
	for i, line := range strings.Split(string(data), "\n") {
		if strings.Contains(line, "# <- here") {
			want = append(want, fmt.Sprintf("(%s:%d)", file, i+1))
		}
		name, value, _ := strings.Cut(strings.TrimPrefix(line, "# "), ": ")
		if !strings.HasPrefix(line, "# ") {
			continue
		}
		switch name {
		case "ask":
			words := strings.Fields(value)
			q.From, q.To = words[0], words[1]
			if len(words) > 2 {
				q.Method, q.Path = words[2], words[3]
			}
		case "sni":
			q.SNI = value
		case "header":
			q.Headers = append(q.Headers, value)
		case "outcome":
			outcome = value
		case "says":
			want = append(want, value)
		case "with":
			files = append(files, "testdata/"+value)
		}
	}
	w, err := ReadFiles(append(files, "testdata/base.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewModel(w, Options{Completer: simulate.NewCompleter()})
	if err != nil {
		t.Fatal(err)
	}
	r, err := m.Ask(q)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	r.Write(&out)
	if r.Verdict.Outcome != outcome {
		t.Errorf("outcome %s, want %s", r.Verdict.Outcome, outcome)
	}
	for _, s := range want {
		if !strings.Contains(out.String(), s) {
			t.Errorf("it does not say %q", s)
		}
	}
	if t.Failed() {
		t.Log("\n" + out.String())
	}
}
