package charts_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/operator/charts"
	"github.com/isthmus-mesh/isthmus/operator/iop"
	"github.com/isthmus-mesh/isthmus/operator/render"
)

// scheme has the types that our charts render.
func scheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		admissionv1.AddToScheme, appsv1.AddToScheme, autoscalingv2.AddToScheme, corev1.AddToScheme, discoveryv1.AddToScheme,
		networkingv1.AddToScheme, policyv1.AddToScheme, rbacv1.AddToScheme, apiextensionsv1.AddToScheme,
	} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// variants are values that turn on what is off by default.
func variants(profile string) map[string]map[string]any {
	common := map[string]any{
		"profile": profile,
		"global":  map[string]any{"networkPolicy": map[string]any{"enabled": true}, "imagePullSecrets": []any{"registry"}, "priorityClassName": "system-cluster-critical", "logAsJson": true, "remotePilotAddress": "192.0.2.7", "platform": "gke"},
	}
	with := func(more map[string]any) map[string]any {
		out := map[string]any{}
		for _, m := range []map[string]any{common, more} {
			for k, v := range m {
				out[k] = v
			}
		}
		return out
	}
	return map[string]map[string]any{
		"base":    with(nil),
		"istiod":  with(map[string]any{"revision": "canary", "revisionTags": []any{"prod"}, "taint": map[string]any{"enabled": true}, "jwksResolverExtraRootCA": "PEM", "env": map[string]any{"A": 1, "B": map[string]any{"valueFrom": map[string]any{"fieldRef": map[string]any{"fieldPath": "metadata.name"}}}}, "podDisruptionBudget": map[string]any{"maxUnavailable": "10%"}, "memory": map[string]any{"targetAverageUtilization": 80}}),
		"cni":     with(map[string]any{"repair": map[string]any{"deletePods": true}, "cni": map[string]any{"ambient": map[string]any{"enablementSelectors": []any{map[string]any{"podSelector": map[string]any{}}}}}}),
		"ztunnel": with(map[string]any{"peerCaCrl": map[string]any{"enabled": true}, "network": "n1", "meshConfig": map[string]any{"trustDomain": "td"}, "env": map[string]any{"A": "b"}}),
		"gateway": with(map[string]any{"networkGateway": "n1", "rbac": map[string]any{"enabled": true}, "podDisruptionBudget": map[string]any{"minAvailable": 1}, "labels": map[string]any{"istio": "east"}}),
	}
}

// definitionsOnce leaves the CustomResourceDefinitions out of what the chart base renders, but for one profile: they are the same for
// all, and rendering them costs more than all else here.
func definitionsOnce(chart, profile string, values map[string]any) map[string]any {
	if chart == "base" && profile != "default" {
		values["base"] = map[string]any{"enableCRDTemplates": false}
	}
	return values
}

// TestEveryObjectIsOne: whatever a chart renders, for every profile, with and without options, is an object of Kubernetes, to the field.
func TestEveryObjectIsOne(t *testing.T) {
	t.Parallel()
	s := scheme(t)
	for _, profile := range iop.Profiles() {
		for chart, values := range variants(profile) {
			for name, v := range map[string]map[string]any{"plain": {"profile": profile, "global": map[string]any{"remotePilotAddress": "192.0.2.7"}}, "all": values} {
				objects, err := render.Chart(charts.FS(), chart, "release", "istio-system", definitionsOnce(chart, profile, v), "")
				if err != nil {
					t.Errorf("%s, profile %s, %s: %v", chart, profile, name, err)
					continue
				}
				for _, u := range objects {
					strict(t, s, chart+" "+profile+" "+name, u)
				}
			}
		}
	}
}

func strict(t *testing.T, s *runtime.Scheme, where string, u *unstructured.Unstructured) {
	t.Helper()
	o, err := s.New(u.GroupVersionKind())
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	if u.GetKind() == "CustomResourceDefinition" {
		return
	}
	data, err := yaml.Marshal(u.Object)
	if err != nil {
		t.Fatal(err)
	}
	if data, err = yaml.YAMLToJSONStrict(data); err != nil {
		t.Fatal(err)
	}
	unknown, err := kjson.UnmarshalStrict(data, o)
	if err != nil || len(unknown) > 0 {
		t.Errorf("%s: %s %s: %v %v", where, u.GetKind(), u.GetName(), err, unknown)
	}
	if u.GetLabels()["operator.istio.io/component"] == "" {
		t.Errorf("%s: %s %s: no component label", where, u.GetKind(), u.GetName())
	}
}

// TestWhoMayReadSecretsOfGateways: the control plane reads them where a gateway is installed, and everywhere only when it is told to.
func TestWhoMayReadSecretsOfGateways(t *testing.T) {
	t.Parallel()
	bindings := func(chart, namespace string, values map[string]any) map[string]string {
		objects, err := render.Chart(charts.FS(), chart, "edge", namespace, values, "")
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, u := range objects {
			if kind := u.GetKind(); kind != "RoleBinding" && kind != "ClusterRoleBinding" {
				continue
			}
			subjects, _, err := unstructured.NestedSlice(u.Object, "subjects")
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, s := range subjects {
				if s, ok := s.(map[string]any); ok {
					all = append(all, fmt.Sprint(s["namespace"], "/", s["name"]))
				}
			}
			out[strings.TrimPrefix(u.GetNamespace()+"/"+u.GetName(), "/")] = strings.Join(all, " ")
		}
		return out
	}
	const everywhere = "istiod-gateway-credentials-istio-system"
	if got := bindings("istiod", "istio-system", nil)[everywhere]; got != "" {
		t.Errorf("bound in the whole cluster by default: %s", got)
	}
	all := map[string]any{"gatewayCredentials": map[string]any{"allNamespaces": true}}
	if got := bindings("istiod", "istio-system", all)[everywhere]; got != "istio-system/istiod" {
		t.Errorf("all namespaces: bound to %q", got)
	}
	if got := bindings("gateway", "web", map[string]any{"revision": "canary"})["web/edge"]; got != "web/edge istio-system/istiod-canary" {
		t.Errorf("a gateway's namespace: bound to %q", got)
	}
	if got := bindings("gateway", "web", map[string]any{"rbac": map[string]any{"enabled": false}}); len(got) > 0 {
		t.Errorf("without rbac: %v", got)
	}
}

// TestLint runs Helm's own linter.
func TestLint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, charts.FS()); err != nil {
		t.Fatal(err)
	}
	for chart := range variants("") {
		for _, profile := range iop.Profiles() {
			values := map[string]any{"profile": profile, "global": map[string]any{"remotePilotAddress": "192.0.2.7"}}
			linter := lint.RunAll(filepath.Join(dir, chart), definitionsOnce(chart, profile, values), "istio-system")
			for _, m := range linter.Messages {
				if m.Severity >= support.WarningSev {
					t.Errorf("%s, profile %s: %s", chart, profile, m.Error())
				}
			}
		}
	}
}

// TestUmbrella: the chart ambient installs what its parts do.
func TestUmbrella(t *testing.T) {
	t.Parallel()
	objects, err := render.Chart(charts.FS(), "ambient", "mesh", "istio-system", map[string]any{"global": map[string]any{"hub": "registry.example"}}, "")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"istiod": "registry.example/pilot:dev", "istio-cni-node": "registry.example/install-cni:dev", "ztunnel": "registry.example/ztunnel:dev"}
	for _, u := range objects {
		containers, _, _ := unstructured.NestedSlice(u.Object, "spec", "template", "spec", "containers")
		if len(containers) == 0 {
			continue
		}
		if got := containers[0].(map[string]any)["image"]; got != want[u.GetName()] {
			t.Errorf("%s: image %v, want %s", u.GetName(), got, want[u.GetName()])
		}
		delete(want, u.GetName())
		if u.GetName() == "istiod" && !bytes.Contains(marshal(t, containers[0]), []byte("PILOT_ENABLE_AMBIENT")) {
			t.Error("the profile ambient did not reach istiod")
		}
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

func marshal(t *testing.T, value any) []byte {
	t.Helper()
	out, err := yaml.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestSchemas: values that no template reads are refused by their name, in both places where they may stand; those that one reads are not.
func TestSchemas(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		chart  string
		values string
		want   string // in the error; empty: none
	}{
		{"istiod", "{autoscaleEnabled: false, env: {ANY: x}, meshConfig: {accessLogFile: /dev/stdout}}", ""},
		{"istiod", "{pilot: {autoscaleEnabled: false, resources: {limits: {cpu: 1}}}}", ""},
		{"istiod", "{autoscaleEnable: false}", "autoscaleEnable"},
		{"istiod", "{pilot: {replicas: 2}}", "replicas"},
		{"istiod", "{global: {hubb: x}}", "hubb"},
		{"istiod", "{replicaCount: many}", "replicaCount"},
		{"cni", "{ambient: {dnsCapture: false}, global: {hub: x, proxy: {image: y}}}", ""},
		{"cni", "{ambient: {dnscapture: false}}", "dnscapture"},
		{"ztunnel", "{logLevel: debug, terminationGracePeriodSeconds: 5}", ""},
		{"ztunnel", "{loglevel: debug}", "loglevel"},
		{"gateway", "{service: {type: NodePort}, networkGateway: n}", ""},
		{"gateway", "{service: {tipe: NodePort}}", "tipe"},
		{"base", "{base: {excludedCRDs: [a]}}", ""},
		{"base", "{base: {exclude: [a]}}", "exclude"},
	} {
		c, err := charts.Load(charts.FS(), tt.chart)
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]any{}
		if err := yaml.Unmarshal([]byte(tt.values), &values); err != nil {
			t.Fatal(err)
		}
		err = util.ValidateAgainstSchema(c, values)
		if tt.want == "" && err != nil {
			t.Errorf("%s %s: %v", tt.chart, tt.values, err)
		}
		if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s %s: error %v, want one with %q", tt.chart, tt.values, err, tt.want)
		}
	}
}

// TestPrecedence: defaults under the profile under the platform under the user, nested values under flat ones.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ values, want, not string }{
		{"{}", "AMBIENT_ENABLED: \"false\"", ""},
		{"{profile: ambient}", "AMBIENT_ENABLED: \"true\"", ""},
		{"{global: {profile: ambient}}", "AMBIENT_ENABLED: \"true\"", ""},
		{"{profile: ambient, ambient: {enabled: false}}", "AMBIENT_ENABLED: \"false\"", ""},
		{"{profile: ambient, cni: {ambient: {enabled: false}}}", "AMBIENT_ENABLED: \"false\"", ""},
		{"{cni: {ambient: {enabled: false}}, ambient: {enabled: true}}", "AMBIENT_ENABLED: \"true\"", ""},
		{"{global: {platform: k3d}}", "path: /bin", "path: /opt/cni/bin"},
		{"{global: {platform: k3d}, cniBinDir: /mine}", "path: /mine", "path: /bin"},
		{"{excludeNamespaces: []}", "EXCLUDE_NAMESPACES: \"\"", ""},
		{"{resources: null}", "image: docker.io/isthmus/install-cni:dev", "requests:"},
	} {
		values := map[string]any{}
		if err := yaml.Unmarshal([]byte(tt.values), &values); err != nil {
			t.Fatal(err)
		}
		objects, err := render.Chart(charts.FS(), "cni", "istio-cni", "istio-system", values, "")
		if err != nil {
			t.Fatalf("%s: %v", tt.values, err)
		}
		var all []byte
		for _, u := range objects {
			all = append(all, marshal(t, u.Object)...)
		}
		if !bytes.Contains(all, []byte(tt.want)) {
			t.Errorf("%s: no %q", tt.values, tt.want)
		}
		if tt.not != "" && bytes.Contains(all, []byte(tt.not)) {
			t.Errorf("%s: has %q", tt.values, tt.not)
		}
	}
}

// TestRefusals: what no schema can refuse, templates do, in words.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for chart, tt := range map[string]struct{ values, want string }{
		"istiod":  {"{profile: ambiant}", `profile: "ambiant" is none of ambient, default`},
		"cni":     {"{global: {platform: k8s}}", `global.platform: "k8s" is none of`},
		"ztunnel": {"{compatibilityVersion: \"1.1\"}", `compatibilityVersion: "1.1" is none of`},
		"gateway": {"{kind: StatefulSet}", `kind: "StatefulSet" is none of Deployment, DaemonSet`},
	} {
		values := map[string]any{}
		if err := yaml.Unmarshal([]byte(tt.values), &values); err != nil {
			t.Fatal(err)
		}
		_, err := render.Chart(charts.FS(), chart, "r", "istio-system", values, "")
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "template:") {
			t.Errorf("%s %s: error %v", chart, tt.values, err)
		}
	}
}

// TestCommonFiles: what is the same in every chart stays the same, and the definitions are those that the types were pinned with.
func TestCommonFiles(t *testing.T) {
	t.Parallel()
	read := func(file string) []byte {
		data, err := fs.ReadFile(charts.FS(), file)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	want := read("base/templates/_values.tpl")
	for _, chart := range []string{"istiod", "cni", "ztunnel", "gateway"} {
		if !bytes.Equal(want, read(chart+"/templates/_values.tpl")) {
			t.Errorf("%s/templates/_values.tpl differs from that of base: copy it", chart)
		}
	}
	crds, err := os.ReadFile("../crds/istio.gen.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(crds, read("base/files/crd-all.gen.yaml")) {
		t.Error("base/files/crd-all.gen.yaml differs from crds/istio.gen.yaml: run go run ./tools/cmd/crdsync")
	}
}
