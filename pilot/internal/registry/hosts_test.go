package registry

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// created applies manifests whose objects are of one second of a day.
func (w *world) created(second int, manifests string) {
	w.t.Helper()
	for _, d := range w.decode(manifests) {
		d.Object.SetCreationTimestamp(metav1.NewTime(time.Unix(int64(second), 0)))
		w.sink.Apply(d.GVK, []kube.Object{d.Object}, nil)
	}
	w.flush()
}

// claims are the services of a host: the namespace, and the object in it; with a star, the canonical one.
func (w *world) claims(host string) (out []string) {
	for _, s := range w.r.Services() {
		if s.Proto.Hostname != host {
			continue
		}
		text := s.Proto.Namespace + "/" + s.Proto.Name
		if s.Proto.Canonical {
			text += "*"
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return out
}

// The oldest claim to a host counts, in a namespace and in the mesh, whatever the names, and in whatever order they come and go.
func TestTheOldestEntryOfAHostCounts(t *testing.T) {
	const host = "x.example.com"
	w := newWorld(t)
	expect := func(want ...string) {
		t.Helper()
		if got := w.claims(host); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	a, b, c := entryYAML("near", "a", host, ""), entryYAML("near", "b", host, ""), entryYAML("far", "c", host, "")
	w.created(3, a)
	expect("near/a*")
	w.created(2, b)
	expect("near/b*")
	w.created(1, c)
	expect("far/c*", "near/b")
	w.remove(c)
	expect("near/b*")
	w.remove(b)
	expect("near/a*")
	// Of the same second, the first by namespace and name counts.
	w.created(3, c)
	expect("far/c*", "near/a")
}

// What a namespace keeps to itself, or does not serve at all, is in nobody's way elsewhere.
func TestEntriesThatOthersDoNotKnowAreNotCanonical(t *testing.T) {
	const host = "x.example.com"
	w := newWorld(t)
	w.keep(`{"defaultVisibility": "PUBLIC", "policies": [{"visibility": "NAMESPACE", "matchingRules": [{"namespaceSelector": {"matchLabels": {"kept": "true"}}}]}]}`)
	w.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: near, labels: {kept: \"true\"}}\n")
	w.created(1, entryYAML("near", "a", host, ""))
	w.created(2, entryYAML("far", "b", host, ""))
	if got, want := w.claims(host), []string{"far/b*", "near/a"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	w.keep(`{"defaultVisibility": "NONE"}`)
	if got := w.claims(host); len(got) > 0 {
		t.Errorf("got %q", got)
	}
}

func TestAServiceOfKubernetesIsCanonical(t *testing.T) {
	const host = "shop.far.svc.cluster.local"
	service := serviceYAML("far", "shop", "10.96.0.1", "")
	w := newWorld(t)
	w.created(1, entryYAML("near", "a", host, ""))
	if got, want := w.claims(host), []string{"near/a*"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	w.created(2, service)
	if got, want := w.claims(host), []string{"far/shop*", "near/a"}; !slices.Equal(got, want) {
		t.Errorf("with the Service: got %q, want %q", got, want)
	}
	w.remove(service)
	if got, want := w.claims(host), []string{"near/a*"}; !slices.Equal(got, want) {
		t.Errorf("without it: got %q, want %q", got, want)
	}
}
