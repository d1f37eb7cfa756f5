package iop_test

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/operator/iop"
)

func file(text string) []iop.File {
	return []iop.File{{Name: "mine.yaml", Data: []byte("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\n" + text)}}
}

// TestOrder: the default profile under the named one under files under --set; gateways are merged by name.
func TestOrder(t *testing.T) {
	t.Parallel()
	op, err := iop.Read(file(`
spec:
  profile: demo
  hub: file.example
  meshConfig: {accessLogFile: /dev/stdout, trustDomain: file}
  components:
    pilot:
      k8s: {replicaCount: 3}
    ingressGateways:
      - name: istio-ingressgateway
        k8s: {replicaCount: 2}
      - name: second
        enabled: true
`), []string{"meshConfig.trustDomain=set", "components.cni.enabled=true", "tag=1.2.3", "components.egressGateways[0].enabled=false", "values.pilot.env.A=b"})
	if err != nil {
		t.Fatal(err)
	}
	s := op.Spec
	if s.Profile != "demo" || s.Hub != "file.example" || s.Tag.String() != "1.2.3" || s.MeshConfig["trustDomain"] != "set" || s.MeshConfig["accessLogFile"] != "/dev/stdout" {
		t.Errorf("got %+v", s)
	}
	if !s.Components.CNI.On() || !s.Components.Pilot.On() || *s.Components.Pilot.K8s.ReplicaCount != 3 || s.Components.Ztunnel.On() {
		t.Errorf("components %+v", s.Components)
	}
	in, out := s.Components.IngressGateways, s.Components.EgressGateways
	if len(in) != 2 || in[0].Name != "istio-ingressgateway" || !in[0].On() || in[0].Label["istio"] != "ingressgateway" || *in[0].K8s.ReplicaCount != 2 || in[1].Name != "second" {
		t.Errorf("ingress gateways %+v", in)
	}
	if len(out) != 1 || out[0].On() || out[0].Name != "istio-egressgateway" {
		t.Errorf("egress gateways %+v", out)
	}
}

// TestRefused: unknown fields by their path, wherever they come from.
func TestRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		files []iop.File
		set   []string
		want  string
	}{
		"file":          {files: file("spec: {components: {pilot: {k8s: {replicas: 2}}}}"), want: `mine.yaml: unknown field "spec.components.pilot.k8s.replicas"`},
		"gateway":       {files: file("spec: {components: {ingressGateways: [{name: a, labels: {}}]}}"), want: `unknown field "spec.components.ingressGateways[0].labels"`},
		"type":          {files: file("spec: {components: {cni: {enabled: maybe}}}"), want: "enabled"},
		"set":           {set: []string{"components.pilott.enabled=true"}, want: `--set: unknown field "spec.components.pilott"`},
		"set, no value": {set: []string{"profile"}, want: "--set profile: want path=value"},
		"profile":       {set: []string{"profile=ambiant"}, want: `profile: "ambiant" is none of ambient, default`},
		"kind":          {files: []iop.File{{Name: "x.yaml", Data: []byte("apiVersion: v1\nkind: ConfigMap\n")}}, want: "x.yaml: v1 ConfigMap: want IstioOperator of install.istio.io/v1alpha1"},
		"not YAML":      {files: []iop.File{{Name: "x.yaml", Data: []byte("a: [")}}, want: "x.yaml: "},
	} {
		_, err := iop.Read(tt.files, tt.set)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", name, err, tt.want)
		}
	}
}

// TestNull: null removes what a profile sets.
func TestNull(t *testing.T) {
	t.Parallel()
	op, err := iop.Read(file("spec: {profile: openshift, values: {global: null}}"), nil)
	if err != nil || op.Spec.Values["global"] != nil {
		t.Errorf("values %v, error %v", op.Spec.Values, err)
	}
}
