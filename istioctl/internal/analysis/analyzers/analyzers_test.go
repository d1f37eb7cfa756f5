package analyzers_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/analyzers"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/collect"
)

var update = flag.Bool("update", false, "write what is found into the test data")

// input makes what is analyzed of files; live is as if a mesh had the objects.
func input(t *testing.T, live bool, files ...collect.File) analysis.Input {
	t.Helper()
	in := analysis.Input{Resources: collect.Assumed("istio-system"), Live: live}
	for _, f := range files {
		parsed := collect.Parse(f, "default", nil)
		for _, e := range parsed.Broken {
			t.Errorf("not an object: %v", e)
		}
		if live {
			for _, r := range parsed.Resources {
				r.File = ""
			}
		}
		collect.Overlay(&in, parsed)
	}
	return in
}

func analyze(t *testing.T, in analysis.Input) analysis.Messages {
	t.Helper()
	found, err := analysis.Run(t.Context(), analysis.NewSnapshot(in), analyzers.All())
	if err != nil {
		t.Fatal(err)
	}
	return found.Unsuppressed(nil)
}

func lines(found analysis.Messages) string {
	var b strings.Builder
	for _, m := range found {
		fmt.Fprintln(&b, m)
	}
	return b.String()
}

// TestCodes: testdata/CODE….txt has a configuration that is wrong, what is found in it, and one that is right, in which nothing is.
func TestCodes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/I*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	covered := map[analysis.Code]bool{}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		code := analysis.Code(filepath.Base(file)[:len("IST0000")])
		covered[code] = true
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			live := strings.Contains(string(archive.Comment), "live")
			for i, part := range archive.Files {
				var want *txtar.File
				if i+1 < len(archive.Files) && archive.Files[i+1].Name == strings.TrimSuffix(part.Name, ".yaml")+".out" {
					want = &archive.Files[i+1]
				}
				if !strings.HasSuffix(part.Name, ".yaml") {
					continue
				}
				found := analyze(t, input(t, live, collect.File{Name: part.Name, Data: part.Data}))
				got := lines(found)
				has := slices.ContainsFunc(found, func(m analysis.Message) bool { return m.Code == code })
				if wrong := strings.HasPrefix(part.Name, "wrong"); wrong != has {
					t.Errorf("%s: %s found: %v; all:\n%s", part.Name, code, has, got)
				}
				switch {
				case want != nil && *update:
					want.Data = []byte(got)
				case want != nil && string(want.Data) != got:
					t.Errorf("%s: found\n%swant\n%s", part.Name, got, want.Data)
				case want == nil && got != "":
					t.Errorf("%s: found\n%swant nothing", part.Name, got)
				}
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	elsewhere := []analysis.Code{analysis.InternalError, analysis.InvalidGatewayCredential, analysis.UnsupportedGatewayAPIVersion, analysis.GatewayAPIBelowMinimum}
	for _, e := range analysis.Codes() {
		if !covered[e.Code] && !slices.Contains(elsewhere, e.Code) {
			t.Errorf("no test data for %s %s", e.Code, e.Name)
		}
	}
}
