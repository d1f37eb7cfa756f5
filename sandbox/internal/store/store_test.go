package store_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/manifest"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
)

// The objects do not come from the manifests' reader, which refuses such names itself.
func TestNoNameLeadsOutOfTheDirectory(t *testing.T) {
	top := t.TempDir()
	s := store.New(filepath.Join(top, "state", "config"), func() {})
	account := func(namespace, name string) manifest.Object {
		return &corev1.ServiceAccount{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		}
	}
	thing := func(apiVersion, kind string) manifest.Object {
		u := &unstructured.Unstructured{}
		u.SetAPIVersion(apiVersion)
		u.SetKind(kind)
		u.SetName("x")
		return u
	}
	for field, o := range map[string]manifest.Object{
		"metadata.name":      account("default", "../../../../../outside"),
		"metadata.namespace": account("..", "outside"),
		"kind":               thing("example.org/v1", "../../../outside"),
		"group":              thing("../v1", "Thing"),
	} {
		if err := s.Put(o); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error %v", field, err)
		}
	}
	if len(s.All()) > 0 {
		t.Errorf("objects were taken: %v", s.All())
	}
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("written: %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPatchedNameStaysInside(t *testing.T) {
	top := t.TempDir()
	s := store.New(filepath.Join(top, "state", "config"), func() {})
	account := &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}}
	if err := s.Put(account); err != nil {
		t.Fatal(err)
	}
	err := store.Modify(s, store.KeyOf(account), "", func(a *corev1.ServiceAccount) { a.Name = "../../../../../outside" })
	if err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(filepath.Join(top, "outside.yaml")); err == nil {
		t.Error("written outside of the state directory")
	}
}

// Whoever has an address or node port keeps it, wherever the names sort.
func TestServicesDoNotShare(t *testing.T) {
	s := store.New(t.TempDir(), func() {})
	put := func(name, spec string) error {
		t.Helper()
		objects, errs := manifest.Decode("x", fmt.Appendf(nil, "{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: %s}", name, spec))
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		return s.Put(objects[0])
	}
	first := "{type: NodePort, clusterIP: 10.96.0.77, ports: [{port: 80, nodePort: 30080}]}"
	if err := put("second", first); err != nil {
		t.Fatal(err)
	}
	if err := put("second", first); err != nil {
		t.Errorf("the same again: %v", err)
	}
	for _, tt := range []struct{ spec, want string }{
		{"{clusterIP: 10.96.0.77}", "Service default/a-later: spec.clusterIP: 10.96.0.77 is that of Service default/second"},
		{"{clusterIPs: [10.96.0.77]}", "spec.clusterIPs[0]: 10.96.0.77 is"},
		{"{type: NodePort, ports: [{port: 80, nodePort: 30080}]}", "spec.ports[0].nodePort: 30080/TCP is that of Service default/second"},
		{"{type: NodePort, ports: [{port: 80, nodePort: 30081}, {port: 81, nodePort: 30081}]}", "spec.ports[1].nodePort: 30081/TCP is that of spec.ports[0].nodePort"},
	} {
		if err := put("a-later", tt.spec); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.spec, err, tt.want)
		}
	}
	if _, ok := s.Get(store.Key{Kind: "Service", Namespace: "default", Name: "a-later"}); ok {
		t.Error("the later one was taken")
	}
	if err := put("a-later", "{type: NodePort, ports: [{port: 80, nodePort: 30080, protocol: UDP}, {port: 80, nodePort: 30081}, {port: 80, nodePort: 30081, protocol: UDP}]}"); err != nil {
		t.Errorf("one port of two protocols: %v", err)
	}
	if _, err := s.Delete(store.Key{Kind: "Service", Namespace: "default", Name: "second"}); err != nil {
		t.Fatal(err)
	}
	if err := put("third", first); err != nil {
		t.Errorf("what is free again: %v", err)
	}
}

// Others on the machine may read what the mesh reads, but no secrets.
func TestSecretsAreRoots(t *testing.T) {
	dir := t.TempDir()
	s := store.New(dir, func() {})
	secret := &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "key"}}
	for range 2 {
		if err := s.Put(secret.DeepCopy()); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, "user", "secret_default_key.yaml"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		secret.StringData = map[string]string{"a": "b"}
	}
}
