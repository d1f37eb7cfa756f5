package main

import (
	"fmt"
	"net/http"
	"os"
	"path"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach/reachtest"
)

// manifests is a Kubernetes API that has the objects of a file and nothing else. What its pods listen with is in ports: pod:port.
type manifests struct {
	objects []map[string]any
	ports   map[string]http.Handler
}

func readManifests(t *testing.T, file string) *manifests {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m := &manifests{ports: map[string]http.Handler{}}
	for doc := range strings.SplitSeq(string(data), "\n---\n") {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatal(err)
		}
		m.objects = append(m.objects, o)
	}
	return m
}

// plural is the resource of a kind.
func plural(kind string) string {
	kind = strings.ToLower(kind)
	switch {
	case strings.HasSuffix(kind, "y") && !strings.HasSuffix(kind, "ay"):
		return strings.TrimSuffix(kind, "y") + "ies"
	case strings.HasSuffix(kind, "s"):
		return kind + "es"
	}
	return kind + "s"
}

// place is the path of the kind and, if it has one, the namespace of an object.
func place(o map[string]any) (of, namespace, name string) {
	kind, _ := o["kind"].(string)
	version, _ := o["apiVersion"].(string)
	meta, _ := o["metadata"].(map[string]any)
	namespace, _ = meta["namespace"].(string)
	name, _ = meta["name"].(string)
	root := "/apis/"
	if !strings.Contains(version, "/") {
		root = "/api/"
	}
	return root + version + "/" + plural(kind), namespace, name
}

func (m *manifests) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if pod, ok := strings.CutSuffix(r.URL.Path, "/portforward"); ok {
		reachtest.PortForward(w, r, func(port string) http.Handler { return m.ports[path.Base(pod)+":"+port] })
		return
	}
	if r.URL.Path == "/version" {
		answer(w, map[string]any{"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
		return
	}
	if strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews") {
		answer(w, map[string]any{"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "status": map[string]any{"allowed": true}})
		return
	}
	items, known, list := []any{}, false, map[string]any{"kind": "List", "apiVersion": "v1", "metadata": map[string]any{}}
	for _, o := range m.objects {
		of, namespace, name := place(o)
		in := strings.Replace(of, "/"+path.Base(of), "/namespaces/"+namespace+"/"+path.Base(of), 1)
		switch r.URL.Path {
		case of, in:
			known = true
			list["kind"], list["apiVersion"] = fmt.Sprint(o["kind"], "List"), o["apiVersion"]
			if selected(o, r.URL.Query().Get("labelSelector")) {
				items = append(items, o)
			}
		case in + "/" + name:
			answer(w, o)
			return
		}
	}
	last := path.Base(r.URL.Path)
	for _, empty := range []string{"leases", "nodes", "networkpolicies", "pods", "events"} {
		known = known || last == empty
	}
	if !known {
		status(w, http.StatusNotFound, "NotFound")
		return
	}
	list["items"] = items
	answer(w, list)
}

// selected is whether an object has the labels of a selector with =.
func selected(o map[string]any, selector string) bool {
	meta, _ := o["metadata"].(map[string]any)
	labels, _ := meta["labels"].(map[string]any)
	for term := range strings.SplitSeq(selector, ",") {
		if k, v, ok := strings.Cut(term, "="); ok && labels[k] != v {
			return false
		}
	}
	return true
}
