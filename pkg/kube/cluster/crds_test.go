//go:build envtest

package cluster_test

import (
	"os"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
	"github.com/isthmus-mesh/isthmus/pkg/kube/cluster"
	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
)

// crdManifest returns the repository's CRD of that name.
func crdManifest(t *testing.T, name string) string {
	t.Helper()
	for _, file := range kubetest.CRDs(t) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for document := range strings.SplitSeq(string(data), "\n---") {
			if strings.Contains(document, "\n  name: "+name+"\n") {
				return document
			}
		}
	}
	t.Fatalf("no CRD %s", name)
	return ""
}

const (
	peerCRD   = "peerauthentications.security.istio.io"
	policyCRD = "authorizationpolicies.security.istio.io"
)

// deleteCRD returns when the definition is gone, and with it all its objects.
func deleteCRD(t *testing.T, a api, name string) {
	t.Helper()
	definitions := a.client.Resource(apiserver.CRDResource())
	if err := definitions.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// Whoever applied it while it goes would see it go.
	eventually(t, "the CRD is gone", func() bool {
		_, err := definitions.Get(t.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

func TestKindsComeAndGoWithTheirCRDs(t *testing.T) {
	s := kubetest.New(t, kubetest.WithoutCRDs())
	a := newAPI(t, s.REST())
	a.namespace("crds", "")
	// Syncs although no kind of the mesh exists.
	r, _ := run(t, cluster.Config{REST: s.REST(), Kinds: cluster.MeshKinds()})
	peer := `{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a, namespace: crds, labels: {v: "1"}}, spec: {mtls: {mode: STRICT}}}`
	name := "PeerAuthentication.security.istio.io crds/a"

	manifest := crdManifest(t, peerCRD)
	applyCRD(t, s, manifest)
	eventuallyApplies(t, a, peer)
	eventually(t, "an object of a new kind", func() bool { return label(r.get(name)) == "v1" })

	// Of a CRD that serves only an older version.
	deleteCRD(t, a, peerCRD)
	eventually(t, "the object gone with its kind", func() bool { return r.get(name) == nil })
	old := strings.Replace(manifest, "name: v1\n", "name: v1alpha9\n", 1)
	applyCRD(t, s, old)
	eventuallyApplies(t, a, strings.Replace(peer, "istio.io/v1", "istio.io/v1beta1", 1))
	eventually(t, "an object in an old version", func() bool { return label(r.get(name)) == "v1" })
	if got := r.get(name).GetObjectKind().GroupVersionKind(); got != kube.PeerAuthenticationGVK() {
		t.Errorf("it is %s", got)
	}

	// The version that is watched ceases to be served, another is: the sink is told the change of the object only.
	deleteCRD(t, a, peerCRD)
	eventually(t, "the object gone with its kind", func() bool { return r.get(name) == nil })
	applyCRD(t, s, manifest)
	eventuallyApplies(t, a, peer)
	eventually(t, "an object in the new version", func() bool { return label(r.get(name)) == "v1" })
	r.events("")
	if err := apiserver.ApplyCRDManifests(t.Context(), s.REST(), unserved(t, manifest, "v1")); err != nil {
		t.Fatal(err)
	}
	eventuallyApplies(t, a, strings.Replace(strings.Replace(peer, "istio.io/v1", "istio.io/v1beta1", 1), `"1"`, `"2"`, 1))
	eventually(t, "a change in the other version", func() bool { return label(r.get(name)) == "v2" })
	if got := r.events("crds/a"); len(got) != 1 {
		t.Errorf("events: %v", got)
	}

	// None of the versions is known.
	foreign := strings.ReplaceAll(crdManifest(t, policyCRD), "name: v1", "name: v7")
	applyCRD(t, s, foreign)
	eventually(t, "a report of the kind that cannot be read", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.errors) == 1 && strings.Contains(r.errors[0].Error(), "does not serve authorizationpolicies.security.istio.io in version v1, v1beta1")
	})
	deleteCRD(t, a, policyCRD)
	eventually(t, "no report any more", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.errors) == 0 })
}

// unserved returns a CRD that does not serve the version.
func unserved(t *testing.T, manifest, version string) []byte {
	t.Helper()
	var crd map[string]any
	if err := yaml.Unmarshal([]byte(manifest), &crd); err != nil {
		t.Fatal(err)
	}
	for _, v := range crd["spec"].(map[string]any)["versions"].([]any) {
		if v := v.(map[string]any); v["name"] == version {
			v["served"] = false
		}
	}
	return []byte(dump(crd))
}

// eventuallyApplies waits until the API server serves the kind in all its parts.
func eventuallyApplies(t *testing.T, a api, manifest string) {
	t.Helper()
	client, o := a.of(manifest)
	var err error
	eventually(t, "the kind is served", func() bool {
		_, err = client.Apply(t.Context(), o.GetName(), o, metav1.ApplyOptions{FieldManager: "test", Force: true})
		return err == nil
	})
}

// applyCRD applies the CRD and waits until it is established.
func applyCRD(t *testing.T, s *apiserver.Server, manifest string) {
	t.Helper()
	if err := apiserver.ApplyCRDManifests(t.Context(), s.REST(), []byte(manifest)); err != nil {
		t.Fatal(err)
	}
}

func TestInvalidObjectsKeepTheirLastGoodVersion(t *testing.T) {
	a := newAPI(t, shared.REST())
	a.namespace("invalid", "")
	r, _ := run(t, cluster.Config{REST: shared.REST(), Kinds: cluster.MeshKinds()})
	policy := func(v, block string) string {
		return `{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: a, namespace: invalid, labels: {v: "` + v + `"}}, spec: {rules: [{from: [{source: {ipBlocks: ["` + block + `"]}}]}]}}`
	}
	name := "AuthorizationPolicy.security.istio.io invalid/a"
	a.apply(policy("1", "10.0.0.0/8"))
	eventually(t, "a good one", func() bool { return label(r.get(name)) == "v1" })
	a.apply(policy("2", "10.0.0.0/33"))
	problem := func() string {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, e := range r.errors {
			if e.Namespace == "invalid" {
				return e.Error()
			}
		}
		return ""
	}
	want := `AuthorizationPolicy invalid/a: spec.rules[0].from[0].source.ipBlocks[0]: "10.0.0.0/33" is neither an IP address nor a CIDR block such as 10.0.0.0/8`
	eventually(t, "a report", func() bool { return problem() == want })
	if got := label(r.get(name)); got != "v1" {
		t.Errorf("the last good version is %q", got)
	}
	a.apply(policy("3", "10.0.0.0/9"))
	eventually(t, "a mended one", func() bool { return label(r.get(name)) == "v3" && problem() == "" })

	// Bad from the beginning, then removed.
	other := strings.Replace(policy("1", "x"), "name: a", "name: b", 1)
	a.apply(other)
	eventually(t, "a report", func() bool { return strings.Contains(problem(), "invalid/b") })
	a.delete(other)
	eventually(t, "no report of what is gone", func() bool { return problem() == "" })
	a.delete(policy("3", "10.0.0.0/9"))
	eventually(t, "the object is gone", func() bool { return r.get(name) == nil })
}
