package manifest_test

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/manifest"
)

func TestDecodeKeepsWhatIsRight(t *testing.T) {
	objects, errs := manifest.DecodeInto("shop", "m.yaml", []byte(`apiVersion: v1
kind: Service
metadata: {name: good}
---
apiVersion: v1
kind: Service
metadata: {name: bad}
spec: {port: 80}
---
apiVersion: example.org/v1
kind: Thing
metadata: {name: other, namespace: else}
---
apiVersion: v1
kind: List
items: [{apiVersion: v1, kind: Namespace, metadata: {name: ns}}]
`))
	var names []string
	for _, o := range objects {
		names = append(names, o.GetNamespace()+"/"+o.GetName())
	}
	if got := strings.Join(names, " "); got != "shop/good else/other /ns" {
		t.Errorf("objects %s", got)
	}
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "m.yaml: Service shop/bad") && !strings.Contains(errs[0].Error(), "Service bad") {
		t.Errorf("errors %v", errs)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}\n---\nkind: List\napiVersion: v1\nitems: [1]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, _ := manifest.Decode("f", data)
		for _, o := range objects {
			if o.GetName() == "" {
				t.Error("an object without a name")
			}
			if _, err := manifest.Encode(o); err != nil {
				t.Error(err)
			}
		}
	})
}
