package main

import (
	"encoding/json"
	"fmt"
	"maps"
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
	if strings.HasSuffix(r.URL.Path, "/log") {
		if r.URL.Query().Get("previous") != "" {
			status(w, http.StatusBadRequest, "BadRequest")
			return
		}
		fmt.Fprintf(w, "it went wrong\nkey %spassword=hunter2 token eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.c2lnbmF0dXJl\n", plantedKey)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fixed(w, r) {
		return
	}
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

// plantedKey is one that no command may show.
const plantedKey = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIplantedplantedplantedplanted\n-----END EC PRIVATE KEY-----\n"

// fixed answers what is always the same, and lists of objects.
func (s *apiServer) fixed(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case r.URL.Path == "/version":
		answer(w, map[string]any{"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
		return true
	case strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews"):
		answer(w, map[string]any{"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "status": map[string]any{"allowed": true}})
		return true
	case strings.HasSuffix(r.URL.Path, "/leases"), strings.HasSuffix(r.URL.Path, "/nodes"), strings.HasSuffix(r.URL.Path, "/networkpolicies"), strings.HasSuffix(r.URL.Path, "/validatingwebhookconfigurations"), strings.HasSuffix(r.URL.Path, "/events"):
		answer(w, map[string]any{"kind": "List", "apiVersion": "v1", "items": []any{}})
		return true
	}
	plural := filepath.Base(r.URL.Path)
	if r.Method != http.MethodGet || plural != "services" && plural != "namespaces" {
		return false
	}
	items := []any{}
	for path, o := range s.objects {
		in := filepath.Dir(path)
		if filepath.Base(in) == plural && (in == r.URL.Path || r.URL.Path == "/api/v1/"+plural) {
			// Items of a list do not say what they are.
			item := maps.Clone(o)
			delete(item, "kind")
			delete(item, "apiVersion")
			items = append(items, item)
		}
	}
	kind := map[string]string{"services": "ServiceList", "namespaces": "NamespaceList"}[plural]
	answer(w, map[string]any{"kind": kind, "apiVersion": "v1", "metadata": map[string]any{}, "items": items})
	return true
}

// pod is what listens on a port of a pod.
func (s *apiServer) pod(name, port string) http.Handler {
	file := map[string]string{
		"waypoint-8588f947b-xxm99:15000/config_dump": "waypoint.json", "waypoint-8588f947b-xxm99:15000/clusters": "waypoint-clusters.json",
		"ztunnel-xngkr:15000/config_dump": "ztunnel.json", "ztunnel-gg657:15000/config_dump": "ztunnel.json", "istiod-1:8080/debug/syncz": "syncz.json",
		"waypoint-8588f947b-xxm99:15020/stats/prometheus": "../../../cmd/istioctl/testdata/metrics.prom",
	}
	if strings.HasPrefix(name, "reviews") || name == "ztunnel-5gsfl" {
		return nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path, ok := file[name+":"+port+r.URL.Path]; ok {
			http.ServeFile(w, r, filepath.Join(s.dumps, path))
			return
		}
		if name == "istiod-1" && r.URL.Path == "/debug/config_dump" && r.URL.Query().Get("proxyID") == "waypoint-8588f947b-xxm99.inspect" {
			s.configDump(w)
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

// configDump is what the control plane says the waypoint is to have: what the waypoint has, but for what it was started with.
func (s *apiServer) configDump(w http.ResponseWriter) {
	data, err := os.ReadFile(filepath.Join(s.dumps, "waypoint.json"))
	var dump struct {
		Configs []map[string]any `json:"configs"`
	}
	if err == nil {
		err = json.Unmarshal(data, &dump)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	dump.Configs = dump.Configs[1:]
	for _, section := range dump.Configs {
		maps.DeleteFunc(section, func(field string, _ any) bool { return strings.HasPrefix(field, "static") })
	}
	answer(w, dump)
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
		key, value, one := strings.Cut(selector, "=")
		if have, is := labels[key]; selector != "" && (!is || one && have != value) {
			continue
		}
		ready := "True"
		if p.name == "ztunnel-5gsfl" {
			ready = "False"
		}
		items = append(items, map[string]any{
			"metadata": map[string]any{"name": p.name, "namespace": p.namespace, "labels": labels}, "spec": map[string]any{"nodeName": p.node, "containers": []any{
				map[string]any{"name": p.app, "env": []any{map[string]any{"name": "DB_PASSWORD", "value": "hunter2"}, map[string]any{"name": "MODE", "value": "fast"}}},
			}},
			"status": map[string]any{"phase": "Running", "podIP": "10.9.0.1", "podIPs": []any{map[string]any{"ip": "10.9.0.1"}}, "conditions": []any{map[string]any{"type": "Ready", "status": ready}}},
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
		kubeconfig := serve(t, &apiServer{dumps: dumps, level: "info", objects: map[string]map[string]any{
			"/api/v1/namespaces/default": namespace("default", map[string]any{"istio.io/dataplane-mode": "ambient"}),
			"/api/v1/namespaces/taken":   namespace("taken", map[string]any{"istio.io/use-waypoint": "other"}),
			"/api/v1/namespaces/inspect": namespace("inspect", map[string]any{"istio.io/dataplane-mode": "ambient"}),
			"/api/v1/namespaces/tagged":  namespace("tagged", map[string]any{"istio.io/rev": "prod"}),
			"/api/v1/namespaces/inspect/services/reviews": {
				"kind": "Service", "apiVersion": "v1", "metadata": map[string]any{"name": "reviews", "namespace": "inspect"},
				"spec": map[string]any{"clusterIP": "10.96.0.9", "selector": map[string]any{"app": "reviews"}, "ports": []any{map[string]any{"name": "http", "port": 9080, "targetPort": 9080}}},
			},
			"/api/v1/namespaces/istio-system/services/istiod": {
				"kind": "Service", "apiVersion": "v1", "metadata": map[string]any{"name": "istiod", "namespace": "istio-system", "labels": map[string]any{"app": "istiod", "istio.io/rev": "default"}},
				"spec": map[string]any{"clusterIP": "10.96.0.8", "selector": map[string]any{"app": "istiod"}, "ports": []any{map[string]any{"name": "grpc-xds", "port": 15010, "nodePort": 30000}}},
			},
			gateways + "ingress": {
				"kind": "Gateway", "apiVersion": "gateway.networking.k8s.io/v1", "metadata": map[string]any{"name": "ingress", "namespace": "default"},
				"spec": map[string]any{"gatewayClassName": "istio"},
			},
		}}, env.WorkDir)
		dump, err := os.ReadFile(filepath.Join(dumps, "waypoint.json"))
		if err != nil {
			return err
		}
		changed := strings.Replace(string(dump), `"weight": 90`, `"weight": 80`, 1)
		if err := os.WriteFile(filepath.Join(env.WorkDir, "changed.json"), []byte(changed), 0o600); err != nil {
			return err
		}
		env.Setenv("CLUSTER", kubeconfig)
		env.Setenv("DUMPS", dumps)
		env.Setenv("HOME", env.WorkDir)
		return nil
	}
}

// serve starts an API server, and returns the kubeconfig for it, which is in dir.
func serve(t *testing.T, api http.Handler, dir string) string {
	t.Helper()
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {}}]
current-context: c
`, server.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}
