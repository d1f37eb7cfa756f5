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

func TestDecodeRefusesWhatIsNoName(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"{apiVersion: v1, kind: ServiceAccount, metadata: {name: ../../outside, namespace: a}}", "m.yaml: ServiceAccount a/../../outside: metadata.name: \"../../outside\" cannot be used, choose another"},
		{"{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: ..}}", "metadata.namespace"},
		{"{apiVersion: v1, kind: Namespace, metadata: {name: a.b}}", "metadata.name"},
		{"{apiVersion: v1, kind: ../../x, metadata: {name: a}}", "kind"},
		{"{apiVersion: ../v1, kind: Thing, metadata: {name: a}}", "apiVersion"},
		{"{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: a/b}}", "metadata.name"},
		{"{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: ../x}]}}", "spec.containers[0].name"},
		{"{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: a}, spec: {template: {spec: {volumes: [{name: ../x}]}}}}", "spec.template.spec.volumes[0].name"},
	} {
		objects, errs := manifest.Decode("m.yaml", []byte(tt.text))
		if len(objects) > 0 || len(errs) != 1 || !strings.Contains(errs[0].Error(), tt.want+": ") {
			t.Errorf("%s: %d objects, errors %v, want %q", tt.text, len(objects), errs, tt.want)
		}
	}
	for _, text := range []string{
		"{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: 'system:node'}}",
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: kube-root-ca.crt}}",
		"{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: a, namespace: b}}",
	} {
		if _, errs := manifest.Decode("m.yaml", []byte(text)); len(errs) > 0 {
			t.Errorf("%s: %v", text, errs)
		}
	}
}

// The UID becomes part of paths, and is the store's to give.
func TestDecodeDropsWhatTheServerSets(t *testing.T) {
	for _, kind := range []string{"v1, kind: Pod", "example.org/v1, kind: Thing"} {
		objects, errs := manifest.Decode("m.yaml", []byte("{apiVersion: "+kind+", metadata: {name: a, uid: ../../x, creationTimestamp: 2020-01-01T00:00:00Z, deletionTimestamp: 2020-01-01T00:00:00Z}}"))
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		created := objects[0].GetCreationTimestamp()
		if objects[0].GetUID() != "" || !created.IsZero() || objects[0].GetDeletionTimestamp() != nil {
			t.Errorf("%s: %+v", kind, objects[0])
		}
	}
}
