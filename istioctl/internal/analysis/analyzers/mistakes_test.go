package analyzers_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/collect"
)

// expected ends a line that something is to be found about: "# <- CODE", of several "# <- CODE CODE".
var expected = regexp.MustCompile(`# <- ((?:IS[TM]\d{4} ?)+)`)

// TestMistakes: testdata/mistakes/*.txt are what people write by mistake, with the codes at the lines that are to be found, and no others;
// in right.yaml, where the mistake is mended, nothing is found. Findings of level Info do not count.
func TestMistakes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/mistakes/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatal(err, files)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			for _, part := range archive.Files {
				var want, got []string
				for i, line := range strings.Split(string(part.Data), "\n") {
					if m := expected.FindStringSubmatch(line); m != nil {
						for code := range strings.FieldsSeq(m[1]) {
							want = append(want, fmt.Sprintf("%s %s:%d", code, part.Name, i+1))
						}
					}
				}
				found := analyze(t, input(t, false, collect.File{Name: part.Name, Data: part.Data}))
				for _, m := range found {
					if m.Level > analysis.Info {
						got = append(got, fmt.Sprintf("%s %s:%d", m.Code, part.Name, lineOf(m)))
					}
				}
				slices.Sort(want)
				slices.Sort(got)
				if got = slices.Compact(got); !slices.Equal(want, got) {
					t.Errorf("%s: found %v, want %v:\n%s", part.Name, got, want, lines(found))
				}
				if wrong := part.Name != "right.yaml"; wrong != (len(want) > 0) {
					t.Errorf("%s: expects %v", part.Name, want)
				}
			}
		})
	}
}

// lineOf is the line of what a finding is about.
func lineOf(m analysis.Message) int {
	if m.Resource == nil {
		return 0
	}
	return m.Resource.Line(m.Field)
}
