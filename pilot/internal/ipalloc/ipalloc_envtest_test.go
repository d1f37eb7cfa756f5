//go:build envtest

package ipalloc

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
)

type bed struct {
	t *testing.T
	c *Controller
}

func (b *bed) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.c.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	}
}

func (b *bed) apply(text string, subresources ...string) {
	b.t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		b.t.Fatal(err)
	}
	data, err := u.MarshalJSON()
	if err != nil {
		b.t.Fatal(err)
	}
	force := true
	_, err = b.c.dynamic.Resource(entries()).Namespace("default").Patch(b.t.Context(), u.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: "person", Force: &force}, subresources...)
	if err != nil {
		b.t.Fatal(err)
	}
}

// addresses are those in the status.
func (b *bed) addresses(name string) string {
	u, err := b.c.dynamic.Resource(entries()).Namespace("default").Get(b.t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return ""
	}
	if err != nil {
		b.t.Fatal(err)
	}
	e, err := decode(u)
	if err != nil {
		b.t.Fatal(err)
	}
	return listed(e.Status.GetAddresses())
}

func (b *bed) until(name string, ok func(string) bool) string {
	b.t.Helper()
	got := ""
	wait.Until(b.t, time.Minute, name+" has the addresses that it is to have", func() bool {
		got = b.addresses(name)
		return ok(got)
	}, func() string { return fmt.Sprintf("it has %q", got) })
	return got
}

func serviceEntry(name, more, hosts string) string {
	return fmt.Sprintf("{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: %s, namespace: default%s}, spec: {hosts: [%s], ports: [{number: 80, name: http}], resolution: DNS}}", name, more, hosts)
}

func TestAllocation(t *testing.T) {
	s := kubetest.New(t, kubetest.WithoutCRDs())
	c, err := New(Config{REST: s.REST(), Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t, c}
	stop := b.start() // ServiceEntries appear as a kind afterwards
	if err := apiserver.ApplyCRDs(t.Context(), s.REST(), kubetest.CRDs(t)...); err != nil {
		t.Fatal(err)
	}
	b.apply(serviceEntry("a", "", "a.example.org, b.example.org, '*.example.org'"))
	want := expected("default/a", "a.example.org") + " " + expected("default/a", "b.example.org")
	first := b.until("a", func(got string) bool { return got == want })
	stop()

	// While nobody leads: another entry with an address of the first one, from a backup, and the first one's are wiped.
	v4 := strings.TrimPrefix(strings.Fields(first)[0], "a.example.org=")
	b.apply(serviceEntry("copy", "", "c.example.org"))
	b.apply(`{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: copy, namespace: default}, status: {addresses: [{host: c.example.org, value: `+v4+`}]}}`, "status")
	stop = b.start()
	defer stop()
	b.until("copy", func(got string) bool {
		return got != "" && !strings.Contains(got, v4+" ") && len(strings.Fields(got)) == 2
	})
	if got := b.addresses("a"); got != first {
		t.Errorf("the older one has %s now, and had %s", got, first)
	}
	// Somebody takes them away: the same come back.
	b.apply(`{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: a, namespace: default}, status: {addresses: []}}`, "status")
	b.until("a", func(got string) bool { return got == first })
	b.apply(serviceEntry("a", "", "b.example.org"))
	b.until("a", func(got string) bool { return got == expected("default/a", "b.example.org") })
	b.apply(serviceEntry("a", ", labels: {networking.istio.io/enable-autoallocate-ip: 'false'}", "b.example.org"))
	b.until("a", func(got string) bool { return got == "" })
	if err := c.dynamic.Resource(entries()).Namespace("default").Delete(t.Context(), "copy", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.apply(serviceEntry("copy", "", "c.example.org"))
	b.until("copy", func(got string) bool { return got == expected("default/copy", "c.example.org") })
}
