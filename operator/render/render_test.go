package render_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/operator/iop"
	"github.com/isthmus-mesh/isthmus/operator/render"
)

var update = flag.Bool("update", false, "write the golden files")

// operator reads an installation. The CustomResourceDefinitions are left out: the charts' own tests render them, at a price.
func operator(t *testing.T, text string, set ...string) *iop.Operator {
	t.Helper()
	set = append(set, "values.base.enableCRDTemplates=false")
	var files []iop.File
	if text != "" {
		files = []iop.File{{Name: "test", Data: []byte("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\n" + text)}}
	}
	op, err := iop.Read(files, set)
	if err != nil {
		t.Fatal(err)
	}
	return op
}

// TestProfiles compares what each profile installs with a list: the component, the object, and the image of what runs.
func TestProfiles(t *testing.T) {
	t.Parallel()
	for _, profile := range iop.Profiles() {
		what, err := render.Render(operator(t, "", "profile="+profile, "values.global.remotePilotAddress=192.0.2.7"), render.Options{Tag: "1.0", Version: "1.0"})
		if err != nil {
			t.Errorf("%s: %v", profile, err)
			continue
		}
		var b bytes.Buffer
		for _, c := range what.Components {
			for _, u := range c.Objects {
				fmt.Fprintf(&b, "%-16s %s %s%s\n", c.Name, u.GetKind(), strings.TrimPrefix(u.GetNamespace()+"/"+u.GetName(), "/"), image(u))
			}
		}
		golden(t, "profile-"+profile+".txt", b.Bytes())
	}
}

func image(u *unstructured.Unstructured) string {
	containers, _, _ := unstructured.NestedSlice(u.Object, "spec", "template", "spec", "containers")
	if len(containers) == 0 {
		return ""
	}
	return fmt.Sprintf(" %v", containers[0].(map[string]any)["image"])
}

// TestObjects compares the objects that matter most, in full.
func TestObjects(t *testing.T) {
	t.Parallel()
	what, err := render.Render(operator(t, "", "profile=ambient", "components.ingressGateways[0].enabled=true"), render.Options{Tag: "1.0", Version: "1.0"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"Deployment/istiod", "ClusterRole/istiod-clusterrole-istio-system", "Role/istiod", "DaemonSet/istio-cni-node", "ClusterRole/istio-cni", "DaemonSet/ztunnel",
		"Deployment/istio-ingressgateway", "Service/istio-ingressgateway", "ConfigMap/istio", "ConfigMap/istio-cni-config",
	} {
		u := find(t, what, name)
		data, err := yaml.Marshal(u.Object)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, strings.ToLower(strings.ReplaceAll(name, "/", "-"))+".yaml", data)
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s differs; got (write it by -update):\n%s", file, got)
	}
}

func find(t *testing.T, what *render.Installation, name string) *unstructured.Unstructured {
	t.Helper()
	for _, u := range what.Objects() {
		if u.GetKind()+"/"+u.GetName() == name {
			return u
		}
	}
	t.Fatalf("no %s", name)
	return nil
}

func field(u *unstructured.Unstructured, path ...string) any {
	v, _, _ := unstructured.NestedFieldNoCopy(u.Object, path...)
	return v
}

func container(u *unstructured.Unstructured) map[string]any {
	return field(u, "spec", "template", "spec", "containers").([]any)[0].(map[string]any)
}

// TestSettings: hub, tag, namespace, revision, mesh configuration, values and the k8s settings end up where they belong.
func TestSettings(t *testing.T) {
	t.Parallel()
	what, err := render.Render(operator(t, `
metadata: {name: mine}
spec:
  profile: ambient
  hub: a.example
  tag: 7
  namespace: mesh
  revision: canary
  meshConfig: {trustDomain: td.example}
  values:
    pilot: {env: {FOO: bar}}
    cni: {logging: {level: debug}}
    base: {enableCRDTemplates: false}
    gateways: {istio-ingressgateway: {type: NodePort, autoscaleMax: 9}}
  unvalidatedValues:
    pilot: {ownValue: 1}
  components:
    ztunnel: {hub: z.example, tag: z}
    ingressGateways:
      - name: istio-ingressgateway
        enabled: true
        namespace: edge
        label: {team: x}
    pilot:
      k8s:
        replicaCount: 4
        resources: {requests: {cpu: 1}}
        env: [{name: REVISION, value: overridden}, {name: NEW, value: x}]
        nodeSelector: {zone: a}
        podAnnotations: {note: mine}
        serviceAnnotations: {svc: z}
        service: {type: NodePort}
        hpaSpec: {maxReplicas: 11}
        strategy: {rollingUpdate: {maxSurge: 1}}
        affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: k, operator: Exists}]}]}}}
        overlays:
          - kind: Deployment
            name: istiod-canary
            patches:
              - {path: "spec.template.spec.containers.[name:discovery].args.[--domain]", value: --dom}
              - {path: spec.template.metadata.labels.added, value: "1"}
              - {path: "spec.template.spec.containers.[0].readinessProbe"}
              - {path: 'metadata.annotations.a\.b/c', value: v}
`), render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	istiod := find(t, what, "Deployment/istiod-canary")
	c := container(istiod)
	for what, ok := range map[string]bool{
		"image":        c["image"] == "a.example/pilot:7",
		"namespace":    istiod.GetNamespace() == "mesh",
		"owner":        istiod.GetLabels()[render.LabelOwner] == "mine" && istiod.GetLabels()[render.LabelRevision] == "canary",
		"replicas":     fmt.Sprint(field(istiod, "spec", "replicas")) == "4",
		"resources":    fmt.Sprint(c["resources"]) == "map[requests:map[cpu:1]]",
		"env":          strings.Contains(fmt.Sprint(c["env"]), "map[name:REVISION value:overridden]") && strings.Contains(fmt.Sprint(c["env"]), "map[name:FOO value:bar]") && strings.Contains(fmt.Sprint(c["env"]), "map[name:NEW value:x]"),
		"nodeSelector": fmt.Sprint(field(istiod, "spec", "template", "spec", "nodeSelector")) == "map[zone:a]",
		"annotations":  field(istiod, "spec", "template", "metadata", "annotations", "note") == "mine",
		"strategy":     fmt.Sprint(field(istiod, "spec", "strategy", "rollingUpdate")) == "map[maxSurge:1 maxUnavailable:25%]",
		"affinity":     strings.Contains(fmt.Sprint(field(istiod, "spec", "template", "spec", "affinity")), "key:k"),
		"overlay list": strings.Contains(fmt.Sprint(c["args"]), "--dom "),
		"overlay add":  field(istiod, "spec", "template", "metadata", "labels", "added") == "1",
		"overlay drop": c["readinessProbe"] == nil,
		"overlay dots": field(istiod, "metadata", "annotations", "a.b/c") == "v",
		"service":      field(find(t, what, "Service/istiod-canary"), "spec", "type") == "NodePort" && find(t, what, "Service/istiod-canary").GetAnnotations()["svc"] == "z",
		"hpa":          fmt.Sprint(field(find(t, what, "HorizontalPodAutoscaler/istiod-canary"), "spec", "maxReplicas")) == "11",
		"mesh":         strings.Contains(fmt.Sprint(field(find(t, what, "ConfigMap/istio-canary"), "data", "mesh")), "trustDomain: td.example"),
		"cni":          field(find(t, what, "ConfigMap/istio-cni-config"), "data", "LOG_LEVEL") == "debug",
		"ztunnel":      container(find(t, what, "DaemonSet/ztunnel"))["image"] == "z.example/ztunnel:z",
		"ztunnel env":  strings.Contains(fmt.Sprint(container(find(t, what, "DaemonSet/ztunnel"))["env"]), "istiod-canary.mesh.svc:15012"),
		"gateway":      find(t, what, "Deployment/istio-ingressgateway").GetNamespace() == "edge" && field(find(t, what, "Service/istio-ingressgateway"), "spec", "type") == "NodePort",
		"gateway hpa":  fmt.Sprint(field(find(t, what, "HorizontalPodAutoscaler/istio-ingressgateway"), "spec", "maxReplicas")) == "9",
		"label":        find(t, what, "Deployment/istio-ingressgateway").GetLabels()["team"] == "x",
		"shared":       find(t, what, "DaemonSet/ztunnel").GetLabels()[render.LabelRevision] == "default",
	} {
		if !ok {
			t.Errorf("%s is not as set", what)
		}
	}
	if t.Failed() {
		data, _ := yaml.Marshal(istiod.Object)
		t.Logf("%s", data)
	}
}

// TestUnknownValues: values that nobody reads are refused by their path, all of them, with a hint.
func TestUnknownValues(t *testing.T) {
	t.Parallel()
	_, err := render.Render(operator(t, "", "profile=ambient", "values.pilot.autoscaleEnable=false", "values.global.proxy.imge=x", "values.foo=1",
		"values.cni.chained=maybe", "values.gateways.istio-ingressgateway.typ=NodePort", "components.ingressGateways[0].enabled=true"), render.Options{})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`spec.values.pilot.autoscaleEnable: unknown value; did you mean "autoscaleEnabled"?`,
		`spec.values.global.proxy.imge: unknown value; did you mean "image"?`,
		`spec.values.foo: unknown value; put it under spec.unvalidatedValues if a changed chart reads it`,
		`spec.values.cni.chained: is a string maybe, want a boolean`,
		`spec.values.gateways.istio-ingressgateway.typ: unknown value; did you mean "type"?`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	if _, err := render.Render(operator(t, "", "unvalidatedValues.pilot.foo=1", "unvalidatedValues.bar=2"), render.Options{}); err != nil {
		t.Errorf("unvalidated values: %v", err)
	}
	if _, err := render.Render(operator(t, "", "values.pilot.foo=1"), render.Options{Force: true}); err != nil {
		t.Errorf("forced: %v", err)
	}
}

// TestOverlayMistakes: an overlay that changes nothing is an error, with the place.
func TestOverlayMistakes(t *testing.T) {
	t.Parallel()
	for overlay, want := range map[string]string{
		"{kind: Deployment, name: istio, patches: []}":                                                              "spec.components.pilot: k8s.overlays[0]: no Deployment istio in this component",
		"{kind: Deployment, name: istiod, patches: [{path: 'spec.[', value: 1}]}":                                   "patches[0].path spec.[: not a path",
		"{kind: Deployment, name: istiod, patches: [{path: 'spec.template.spec.containers.[name:x].a', value: 1}]}": "[name:x]: no such element",
		"{kind: Deployment, name: istiod, patches: [{path: 'metadata.name.a', value: 1}]}":                          "there is no object to have it",
	} {
		_, err := render.Render(operator(t, "spec: {profile: minimal, components: {pilot: {k8s: {overlays: ["+overlay+"]}}}}"), render.Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", overlay, err, want)
		}
	}
}
