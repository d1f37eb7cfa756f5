package manifest

import (
	"bytes"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/operator/charts"
	"github.com/isthmus-mesh/isthmus/operator/render"
	"github.com/isthmus-mesh/isthmus/pilot/simulate"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

const keptEntry = `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: kept, namespace: team}
spec: {hosts: [kept.example.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
`

// visibility is the one that a control plane with a mesh configuration gives an entry of namespace team; empty when it publishes none.
func visibility(t *testing.T, mesh string) (string, error) {
	t.Helper()
	decoded, problems := kube.Decode("entry", []byte(keptEntry))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	m, err := simulate.New(simulate.Settings{MeshConfig: []byte(mesh)}, []kube.Object{decoded[0].Object})
	if err != nil {
		return "", err
	}
	for _, s := range m.Services() {
		return s.Proto.Visibility.String(), nil
	}
	return "", nil
}

// generated is the ConfigMap istio that the flags of an installation come to: what it has under mesh.
func generated(t *testing.T, set ...string) string {
	t.Helper()
	cmd := New(&cli.Globals{}, telemetry.Build{Version: "1.0"})
	var out bytes.Buffer
	cmd.SetOut(&out)
	args := []string{"generate", "--filter", "Pilot", "--set", "values.base.enableCRDTemplates=false"}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	cmd.SetArgs(args)
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	for document := range strings.SplitSeq(out.String(), "\n---\n") {
		var m corev1.ConfigMap
		if err := yaml.Unmarshal([]byte(document), &m); err == nil && m.Kind == "ConfigMap" && m.Name == "istio" {
			return m.Data["mesh"]
		}
	}
	t.Fatal("there is no ConfigMap istio")
	return ""
}

// charted is the same of the chart's values.
func charted(t *testing.T, values string) string {
	t.Helper()
	var v map[string]any
	if err := yaml.Unmarshal([]byte(values), &v); err != nil {
		t.Fatal(err)
	}
	objects, err := render.Chart(charts.FS(), "istiod", "istiod", "istio-system", v, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range objects {
		if mesh, ok, _ := unstructured.NestedString(u.Object, "data", "mesh"); ok && u.GetName() == "istio" {
			return mesh
		}
	}
	t.Fatal("there is no ConfigMap istio")
	return ""
}

// The visibility of ServiceEntries, as users set it at installation, is what the control plane reads from the ConfigMap.
func TestServiceEntryVisibilityAsInstalled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ mesh, want, refused string }{
		"none set":      {generated(t, "profile=ambient"), "PUBLIC", ""},
		"--set default": {generated(t, "profile=ambient", "meshConfig.serviceEntryVisibility.defaultVisibility=NAMESPACE"), "NAMESPACE", ""},
		"--set a policy": {generated(t, "meshConfig.serviceEntryVisibility.policies[0].visibility=NONE",
			`meshConfig.serviceEntryVisibility.policies[0].matchingRules[0].namespaceSelector.matchLabels.kubernetes\.io/metadata\.name=team`), "", ""},
		"--set a word": {generated(t, "meshConfig.serviceEntryVisibility=NAMESPACE"), "", "write serviceEntryVisibility: {defaultVisibility: NAMESPACE}"},
		"chart": {charted(t, `
meshConfig:
  serviceEntryVisibility:
    defaultVisibility: NONE
    policies:
    - visibility: NAMESPACE
      matchingRules:
      - namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [team]}]}
`), "NAMESPACE", ""},
	} {
		got, err := visibility(t, c.mesh)
		if c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) || c.refused == "" && err != nil || got != c.want {
			t.Errorf("%s: visibility %q, %v, want %q %q; the mesh configuration is\n%s", name, got, err, c.want, c.refused, c.mesh)
		}
	}
}
