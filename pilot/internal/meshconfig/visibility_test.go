package meshconfig

import (
	"log/slog"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
)

// visibility waits for settings with which the entries of namespace x have a visibility.
func (f *following) visibility(want ambient.Visibility) {
	f.t.Helper()
	for {
		select {
		case s := <-f.settings:
			if v := s.Mesh("c", "", "cluster.local").Visibility; v.Configured() && v.Of("x", nil) == want {
				return
			}
		case <-time.After(30 * time.Second):
			f.t.Fatalf("the visibility never is %s", want)
		}
	}
}

// The visibility of ServiceEntries, as the ConfigMap has it: read at the start, followed, and kept when a version cannot be used.
func TestVisibilityInAConfigMap(t *testing.T) {
	const whole = `
accessLogFile: /dev/stdout
defaultConfig: {discoveryAddress: istiod.istio-system.svc:15012}
enablePrometheusMerge: true
rootNamespace: istio-system
trustDomain: cluster.local
serviceEntryVisibility:
`
	api := fake.NewClientset(configMap("istio", whole+"  defaultVisibility: NAMESPACE\n"))
	s := Source{API: api, Namespace: "istio-system", Name: ConfigMapName(""), Shared: "shared", Log: slog.New(slog.DiscardHandler)}
	loaded, err := s.Load(t.Context())
	if err != nil || loaded.Visibility.Of("x", nil) != ambient.VisibleToNamespace || loaded.Proto.GetServiceEntryVisibility().GetDefaultVisibility().String() != "NAMESPACE" {
		t.Fatalf("loaded %v, %v", loaded.Proto, err)
	}
	f := follow(t, s)
	maps := api.CoreV1().ConfigMaps("istio-system")
	update := func(mesh string) {
		t.Helper()
		if _, err := maps.Update(t.Context(), configMap("istio", mesh), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	f.visibility(ambient.VisibleToNamespace)
	kubetest.AwaitWatches(t, api, "configmaps", 2)
	update(whole + "  policies: [{visibility: NONE, matchingRules: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: x}}}]}]\n")
	f.visibility(ambient.VisibleToNone)
	update(whole + "  defaultVisibility: NAMSPACE\n")
	f.problem(`serviceEntryVisibility.defaultVisibility: "NAMSPACE" is not one of`)
	update(whole + "  NAMESPACE\n")
	f.problem("write serviceEntryVisibility: {defaultVisibility: NAMESPACE}")
	for len(f.settings) > 0 {
		if s := <-f.settings; s.Visibility.Of("x", nil) != ambient.VisibleToNone {
			t.Errorf("what cannot be used was put in force: %s", s.Visibility.Of("x", nil))
		}
	}
	// What users share between control planes counts where a control plane's own does not speak of it.
	if _, err := maps.Create(t.Context(), configMap("shared", "serviceEntryVisibility: {defaultVisibility: NAMESPACE}"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	update("trustDomain: own")
	f.visibility(ambient.VisibleToNamespace)
	f.problem("")
}
