package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach/reachtest"
)

// apiServer keeps namespaces and gateways as a Kubernetes API does, as far as the commands ask. The control plane is part of it: a gateway
// is programmed at once, unless its name is "slow".
type apiServer struct {
	dumps string // directory of what the pods answer

	mu      sync.Mutex // guards objects and level
	objects map[string]map[string]any
	level   string
}

// object is what was asked for: a path as /apis/GROUP/VERSION/namespaces/NAMESPACE/KIND/NAME.
func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if pod, ok := strings.CutSuffix(r.URL.Path, "/portforward"); ok {
		reachtest.PortForward(w, r, func(port string) http.Handler { return s.pod(filepath.Base(pod), port) })
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if filepath.Base(r.URL.Path) == "pods" {
		answer(w, pods(r.URL.Query().Get("labelSelector")))
		return
	}
	switch r.Method {
	case http.MethodPatch:
		s.patch(w, r)
	case http.MethodDelete:
		if _, ok := s.objects[r.URL.Path]; !ok {
			status(w, http.StatusNotFound, "NotFound")
			return
		}
		delete(s.objects, r.URL.Path)
		answer(w, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Success"})
	default:
		if o, ok := s.objects[r.URL.Path]; ok {
			answer(w, o)
			return
		}
		for _, p := range pods("")["items"].([]any) {
			if m := p.(map[string]any)["metadata"].(map[string]any); r.URL.Path == fmt.Sprintf("/api/v1/namespaces/%s/pods/%s", m["namespace"], m["name"]) {
				answer(w, p)
				return
			}
		}
		if !strings.HasSuffix(r.URL.Path, "/gateways") {
			status(w, http.StatusNotFound, "NotFound")
			return
		}
		items := []any{}
		for path, o := range s.objects {
			dir, name := filepath.Dir(r.URL.Path), filepath.Base(filepath.Dir(path))
			if name == "gateways" && strings.HasPrefix(path, dir+"/") {
				items = append(items, o)
			}
		}
		answer(w, map[string]any{"kind": "GatewayList", "apiVersion": "gateway.networking.k8s.io/v1", "items": items})
	}
}

// pod is what listens on a port of a pod.
func (s *apiServer) pod(name, port string) http.Handler {
	file := map[string]string{
		"waypoint-8588f947b-xxm99:15000/config_dump": "waypoint.json", "waypoint-8588f947b-xxm99:15000/clusters": "waypoint-clusters.json",
		"ztunnel-xngkr:15000/config_dump": "ztunnel.json", "ztunnel-gg657:15000/config_dump": "ztunnel.json", "istiod-1:8080/debug/syncz": "syncz.json",
	}
	if strings.HasPrefix(name, "reviews") || name == "ztunnel-5gsfl" {
		return nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path, ok := file[name+":"+port+r.URL.Path]; ok {
			http.ServeFile(w, r, filepath.Join(s.dumps, path))
			return
		}
		if r.URL.Path != "/logging" {
			http.NotFound(w, r)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.URL.RawQuery != "" {
			s.level = r.URL.RawQuery
		}
		fmt.Fprintln(w, "level:", s.level)
	})
}

// pods are those that a selector of one label selects.
func pods(selector string) map[string]any {
	items := []any{}
	for _, p := range []struct{ namespace, name, app, node string }{
		{"inspect", "waypoint-8588f947b-xxm99", "waypoint", "isthmus-worker2"},
		{"inspect", "reviews-v1-77cd98876-jqkbb", "reviews", "isthmus-worker"},
		{"istio-system", "istiod-1", "istiod", "isthmus-worker"},
		{"istio-system", "ztunnel-5gsfl", "ztunnel", "isthmus-control-plane"},
		{"istio-system", "ztunnel-gg657", "ztunnel", "isthmus-worker"},
		{"istio-system", "ztunnel-xngkr", "ztunnel", "isthmus-worker2"},
	} {
		labels := map[string]any{"app": p.app}
		if p.app == "waypoint" {
			labels = map[string]any{"gateway.networking.k8s.io/gateway-name": "waypoint"}
		}
		key, value, _ := strings.Cut(selector, "=")
		if selector != "" && labels[key] != value {
			continue
		}
		ready := "True"
		if p.name == "ztunnel-5gsfl" {
			ready = "False"
		}
		items = append(items, map[string]any{
			"metadata": map[string]any{"name": p.name, "namespace": p.namespace, "labels": labels}, "spec": map[string]any{"nodeName": p.node},
			"status": map[string]any{"phase": "Running", "conditions": []any{map[string]any{"type": "Ready", "status": ready}}},
		})
	}
	return map[string]any{"kind": "PodList", "apiVersion": "v1", "items": items}
}

func (s *apiServer) patch(w http.ResponseWriter, r *http.Request) {
	var change map[string]any
	if err := json.NewDecoder(r.Body).Decode(&change); err != nil {
		status(w, http.StatusBadRequest, err.Error())
		return
	}
	old, known := s.objects[r.URL.Path]
	if r.Header.Get("Content-Type") == "application/merge-patch+json" {
		if !known {
			status(w, http.StatusNotFound, "NotFound")
			return
		}
		labels, _ := old["metadata"].(map[string]any)["labels"].(map[string]any)
		more, _ := change["metadata"].(map[string]any)["labels"].(map[string]any)
		for key, value := range more {
			labels[key] = value
		}
		answer(w, old)
		return
	}
	ready, reason, message := "True", "Programmed", "the Gateway serves"
	if filepath.Base(r.URL.Path) == "slow" {
		ready, reason, message = "False", "Pending", "its pod is not ready"
	}
	change["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Programmed", "status": ready, "reason": reason, "message": message}}}
	s.objects[r.URL.Path] = change
	answer(w, change)
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

func status(w http.ResponseWriter, code int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": reason})
}

// setup gives a script an API server, whose kubeconfig is $CLUSTER, and the dumps in $DUMPS.
func setup(t *testing.T) func(*testscript.Env) error {
	dumps, err := filepath.Abs("../../internal/dump/testdata")
	if err != nil {
		t.Fatal(err)
	}
	return func(env *testscript.Env) error {
		namespace := func(name string, labels map[string]any) map[string]any {
			return map[string]any{"kind": "Namespace", "apiVersion": "v1", "metadata": map[string]any{"name": name, "labels": labels}}
		}
		const gateways = "/apis/gateway.networking.k8s.io/v1/namespaces/default/gateways/"
		server := httptest.NewServer(&apiServer{dumps: dumps, level: "info", objects: map[string]map[string]any{
			"/api/v1/namespaces/default": namespace("default", map[string]any{"istio.io/dataplane-mode": "ambient"}),
			"/api/v1/namespaces/taken":   namespace("taken", map[string]any{"istio.io/use-waypoint": "other"}),
			gateways + "ingress": {
				"kind": "Gateway", "apiVersion": "gateway.networking.k8s.io/v1", "metadata": map[string]any{"name": "ingress", "namespace": "default"},
				"spec": map[string]any{"gatewayClassName": "istio"},
			},
		}})
		env.Defer(server.Close)
		kubeconfig := filepath.Join(env.WorkDir, "kubeconfig")
		env.Setenv("CLUSTER", kubeconfig)
		env.Setenv("DUMPS", dumps)
		env.Setenv("HOME", env.WorkDir)
		return os.WriteFile(kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {}}]
current-context: c
`, server.URL), 0o600)
	}
}
