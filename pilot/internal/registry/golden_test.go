package registry

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

var update = flag.Bool("update", false, "write the golden files")

// line prints a message on one line, its fields by name: the encoder's own spacing changes from build to build.
func line(t *testing.T, m proto.Message) string {
	t.Helper()
	raw, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(out) + "\n"
}

// resources prints all that the manifests in a file become.
func resources(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r := New(Mesh{Mesh: ambient.Mesh{ClusterID: "Kubernetes", Domain: "cluster.local", TrustDomain: "cluster.local", RootNamespace: "istio-system"}})
	sink := r.Sink(nil)
	decoded, errs := kube.Decode(file, data)
	for _, e := range errs {
		t.Fatal(e)
	}
	for _, d := range decoded {
		for _, e := range kube.Validate(d.Object) {
			if !e.Warning {
				t.Fatal(e)
			}
		}
		sink.Apply(d.GVK, []kube.Object{d.Object}, nil)
	}
	sink.Synced()
	if f, ok := sink.(kube.Flusher); ok {
		f.Flush()
	}
	var out strings.Builder
	for _, s := range r.Services() {
		out.WriteString("service " + s.Key() + "\n  " + line(t, s.Proto))
	}
	for _, w := range r.Workloads() {
		out.WriteString("workload " + w.Key() + "\n  " + line(t, w.Proto))
	}
	for _, p := range r.Policies() {
		out.WriteString("policy " + p.Key() + " " + p.Status.Reason + " " + p.Status.Message + "\n")
	}
	for _, resource := range r.authz.List() {
		m, err := resource.Any.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("authorization " + resource.Name + "\n  " + line(t, m))
	}
	return out.String()
}

// TestGolden pins what manifests become. What is in the files was checked against the description of the wire by hand.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			got, golden := resources(t, file), strings.TrimSuffix(file, ".yaml")+".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s:\n%s", golden, got)
			}
		})
	}
}
