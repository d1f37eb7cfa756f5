//go:build envtest

package cluster_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
	"github.com/isthmus-mesh/isthmus/pkg/kube/cluster"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// TestSamplesAreTheSameFromFilesAndFromTheAPI applies each sample and compares what the API server's source delivers with what the
// source of files makes of it: all that the file says has to be there. The API server adds defaults and status.
func TestSamplesAreTheSameFromFilesAndFromTheAPI(t *testing.T) {
	_, root, err := apiserver.Find()
	if err != nil {
		t.Fatal(err)
	}
	a := newAPI(t, shared.REST())
	r, _ := run(t, cluster.Config{REST: shared.REST()})
	tested := 0
	err = filepath.WalkDir(filepath.Join(root, "samples"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		documents := documentsOf(t, data)
		objects, problems := kube.Decode(path, data)
		if len(problems) > 0 {
			t.Errorf("%s: %v", path, problems)
		}
		for i, want := range objects {
			tested++
			if ns := want.Object.GetNamespace(); ns != "" {
				a.namespace(ns, "")
			}
			same(t, a, r, want, documents[i])
		}
		for _, want := range objects {
			a.delete(manifestOf(t, want.Object))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if tested < 50 {
		t.Errorf("only %d objects", tested)
	}
}

func manifestOf(t *testing.T, o kube.Object) string {
	t.Helper()
	data, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func same(t *testing.T, a api, r *recorder, want kube.Decoded, document map[string]any) {
	t.Helper()
	manifest := manifestOf(t, want.Object)
	document["metadata"].(map[string]any)["namespace"] = want.Object.GetNamespace()
	a.apply(dump(document))
	name := key(want.GVK, want.Name())
	eventually(t, want.File+": "+name, func() bool { return r.get(name) != nil })
	difference := "it was not looked at"
	wait.Until(t, time.Minute, want.File+": "+name+" is the same", func() bool {
		difference = missing("", tree(t, []byte(manifest)), tree(t, []byte(dump(r.get(name)))))
		return difference == ""
	}, func() string { return difference })
}

// documentsOf returns the objects of a manifest as they are written.
func documentsOf(t *testing.T, data []byte) (out []map[string]any) {
	t.Helper()
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		var o map[string]any
		if err := yaml.Unmarshal(document, &o); err != nil {
			t.Fatal(err)
		}
		if o != nil {
			out = append(out, o)
		}
	}
}

func tree(t *testing.T, data []byte) (out any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// missing returns the first thing of want that got does not have.
func missing(path string, want, got any) string {
	switch want := want.(type) {
	case map[string]any:
		fields, _ := got.(map[string]any)
		for name, value := range want {
			if path == "" && name == "status" || value == nil {
				continue
			}
			if m, empty := value.(map[string]any); empty && len(m) == 0 && fields[name] == nil {
				continue
			}
			if problem := missing(path+"."+name, value, fields[name]); problem != "" {
				return problem
			}
		}
		return ""
	case []any:
		items, _ := got.([]any)
		if len(items) != len(want) {
			return fmt.Sprintf("%s: %d items, want %d", path, len(items), len(want))
		}
		for i := range want {
			if problem := missing(fmt.Sprintf("%s[%d]", path, i), want[i], items[i]); problem != "" {
				return problem
			}
		}
		return ""
	}
	if want != got && want != "" && want != false && want != json.Number("0") {
		return fmt.Sprintf("%s: %v, want %v", path, got, want)
	}
	return ""
}
