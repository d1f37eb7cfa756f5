package analyze_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/cmd/analyze"
)

// cluster serves lists of objects by path, and returns the kubeconfig that leads to it.
func cluster(t *testing.T, objects map[string]string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if items, ok := objects[r.URL.Path]; ok {
			fmt.Fprintf(w, `{"kind":"List","apiVersion":"v1","metadata":{},"items":[%s]}`, items)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\ncurrent-context: c\n", server.URL)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// run returns what is printed, and the exit code.
func run(t *testing.T, kubeconfig string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	g := &cli.Globals{}
	cmd := analyze.New(g)
	g.Add(cmd.PersistentFlags())
	g.AddMesh(cmd.PersistentFlags())
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	var out, errs bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(append([]string{"--kubeconfig", kubeconfig}, args...))
	err := cmd.ExecuteContext(t.Context())
	var exit *cli.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.Code
	case err != nil:
		fmt.Fprintln(&errs, "Error:", err)
		code = 1
	}
	return out.String(), errs.String(), code
}

// TestCluster: what is said of a cluster, of one with files over it, and of namespaces.
func TestCluster(t *testing.T) {
	t.Parallel()
	kubeconfig := cluster(t, map[string]string{
		"/api/v1/namespaces":                                `{"metadata":{"name":"default","labels":{"istio.io/dataplane-mode":"ambient"}}},{"metadata":{"name":"shop"}}`,
		"/api/v1/services":                                  `{"metadata":{"name":"reviews","namespace":"default"},"spec":{"ports":[{"name":"http","port":9080}]}}`,
		"/apis/networking.istio.io/v1/destinationrules":     `{"apiVersion":"networking.istio.io/v1","kind":"DestinationRule","metadata":{"name":"r","namespace":"shop"},"spec":{"host":"nobody"}}`,
		"/apis/gateway.networking.k8s.io/v1/gatewayclasses": `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"GatewayClass","metadata":{"name":"istio-waypoint"},"spec":{"controllerName":"istio.io/mesh-controller"}}`,
	})
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fix := write("fix.yaml", "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r, namespace: shop}\nspec: {host: reviews.default.svc.cluster.local}\n")
	bad := write("bad.yaml", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec:\n  targetRefs: [{kind: Service, group: '', name: ratings}]\n  rules: [{}]\n")
	for _, c := range []struct {
		name                   string
		args                   []string
		code                   int
		stdout, stderr, absent string
	}{
		{"namespace", nil, 0, "", "✔ No validation issues found when analyzing namespace: default.", "IST"},
		{"all", []string{"-A"}, 0, "Warning [IST0174] (DestinationRule shop/r) The host nobody", "", "✔"},
		{"threshold", []string{"-A", "--failure-threshold", "Warning"}, 79, "IST0174", "Error: Analyzers found issues when analyzing all namespaces.", "✔"},
		{"another", []string{"-n", "shop"}, 0, "Info [IST0102] (Namespace shop)", "", "✔"},
		{"excluded", []string{"-A", "--exclude-namespaces", "shop"}, 0, "", "✔ No validation issues found when analyzing all namespaces.", "IST"},
		{"file over it", []string{"-A", "-S", "IST0102=Namespace *", fix}, 0, "", "✔ No validation issues found when analyzing " + fix + ".", "IST"},
		{"bad file", []string{bad}, 79, "Error [IST0101] (AuthorizationPolicy default/p " + bad + ":5) Referenced Service not found: \"default/ratings\"", "Error: Analyzers found issues when analyzing namespace: default.", "✔"},
		{"no namespace", []string{"-n", "none"}, 1, "", `namespace "none" not found`, "✔"},
	} {
		stdout, stderr, code := run(t, kubeconfig, c.args...)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) || strings.Contains(stdout+stderr, c.absent) {
			t.Errorf("%s: exit code %d\n%s%s", c.name, code, stdout, stderr)
		}
	}
}
