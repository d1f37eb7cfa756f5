package analysis_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

func pod(namespace, name, suppress string) *analysis.Resource {
	o := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if suppress != "" {
		o.Annotations = map[string]string{"galley.istio.io/analyze-suppress": suppress}
	}
	return analysis.NewResource(kube.PodGVK(), o)
}

func TestSuppression(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		suppression, annotation string
		silent                  bool
	}{
		{"", "", false},
		{"IST0103=Pod mypod.testing", "", true},
		{"IST0103=Pod testing/mypod", "", true},
		{"IST0103=Pod *.testing", "", true},
		{"IST0103=Pod my*.test*", "", true},
		{"IST0103=*", "", true},
		{"IST0103=Pod mypod.other", "", false},
		{"IST0103=Deployment mypod.testing", "", false},
		{"IST0102=Pod mypod.testing", "", false},
		{"", "IST0103", true},
		{"", "IST0101, IST0103", true},
		{"", "*", true},
		{"", "IST0101", false},
	} {
		var found analysis.Messages
		found.Add(analysis.PodMissingProxy, pod("testing", "mypod", c.annotation), "", "testing/mypod")
		var suppressions []analysis.Suppression
		if c.suppression != "" {
			s, err := analysis.ParseSuppression(c.suppression)
			if err != nil {
				t.Fatal(err)
			}
			suppressions = append(suppressions, s)
		}
		if silent := len(found.Unsuppressed(suppressions)) == 0; silent != c.silent {
			t.Errorf("%+v: silent %v", c, silent)
		}
	}
	for _, text := range []string{"", "IST0103", "IST0103=", "=Pod a.b", "IST0103=a=b"} {
		if _, err := analysis.ParseSuppression(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestMessage(t *testing.T) {
	t.Parallel()
	r := pod("shop", "a", "").InFile("dir/f.yaml", func(field string) int { return len(field) })
	var found analysis.Messages
	found.Add(analysis.PodMissingProxy, r, "spec", "shop/a")
	found.Add(analysis.ReferencedResourceNotFound, pod("", "b", ""), "", "host", "x")
	found.Add(analysis.PodMissingProxy, r, "spec", "shop/a")
	sorted := found.Sorted()
	if len(sorted) != 2 || sorted[0].Level != analysis.Error {
		t.Fatalf("sorted %v", sorted)
	}
	if got := sorted[0].String(); got != `Error [IST0101] (Pod b) Referenced host not found: "x"` {
		t.Error(got)
	}
	if got := sorted[1].String(); !strings.HasPrefix(got, "Warning [IST0103] (Pod shop/a dir/f.yaml:4) The pod shop/a is missing") {
		t.Error(got)
	}
	if got := sorted[1].Colored(); !strings.HasPrefix(got, "\x1b[33mWarning\x1b[0m [IST0103]") {
		t.Errorf("%q", got)
	}
	data, err := json.Marshal(sorted[1])
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]string
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	if fields["code"] != "IST0103" || fields["origin"] != "Pod shop/a" || fields["reference"] != "dir/f.yaml:4" || fields["level"] != "Warning" ||
		!strings.HasSuffix(fields["documentationUrl"], "/ist0103/?ref=istioctl-analyze") || fields["message"] == "" {
		t.Errorf("%s", data)
	}
	if got := found.Of("other"); len(got) != 3 {
		t.Errorf("of another namespace, but of a file or of no namespace: %v", got)
	}
	if got := found.Worst(analysis.Error); len(got) != 1 {
		t.Errorf("errors: %v", got)
	}
	if got := found.Without([]string{"shop"}); len(got) != 1 {
		t.Errorf("without a namespace: %v", got)
	}
}

// TestInternalError: an analyzer that stumbles does not take the others with it.
func TestInternalError(t *testing.T) {
	t.Parallel()
	found, err := analysis.Run(t.Context(), analysis.NewSnapshot(analysis.Input{}), []analysis.Analyzer{
		{Name: "a", Run: func(*analysis.Snapshot) analysis.Messages { panic("stumbled") }},
		{Name: "b", Run: func(*analysis.Snapshot) (out analysis.Messages) {
			out.Add(analysis.PodMissingProxy, pod("x", "y", ""), "", "x/y")
			return out
		}},
	})
	if err != nil || len(found) != 2 || found[0].String() != "Error [IST0001] Internal error: a: stumbled" {
		t.Errorf("found %v, %v", found, err)
	}
}

// TestDocumentation: docs/analyze.md tells of every code.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../../docs/analyze.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[analysis.Code]bool{}
	for _, e := range analysis.Codes() {
		if seen[e.Code] {
			t.Errorf("%s is there twice", e.Code)
		}
		seen[e.Code] = true
		heading := "### " + string(e.Code)
		row := "| " + string(e.Code) + " | " + e.Name + " | " + e.Level.String() + " |"
		if !strings.Contains(string(data), row) && !(strings.Contains(string(data), heading+"\n") && strings.Contains(string(data), "**"+e.Name+"**, "+e.Level.String())) {
			t.Errorf("docs/analyze.md does not tell of %s %s, %s", e.Code, e.Name, e.Level)
		}
	}
}
