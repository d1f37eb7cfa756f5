package meshconfig

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestLayers(t *testing.T) {
	s, err := Parse(
		[]byte("trustDomain: shared\naccessLogFile: /dev/stdout\ndefaultConfig: {concurrency: 2, discoveryAddress: a}"),
		[]byte("trustDomain: own\nunknownField: 1\ndefaultConfig: {discoveryAddress: b}"),
		nil,
	)
	if err != nil {
		t.Fatal(err)
	}
	p := s.Proto
	if p.TrustDomain != "own" || p.AccessLogFile != "/dev/stdout" || p.DefaultConfig.GetConcurrency().GetValue() != 2 || p.DefaultConfig.GetDiscoveryAddress() != "b" || p.RootNamespace != "istio-system" {
		t.Errorf("got %v", p)
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"a: [":                         "parse the mesh configuration",
		"[1]":                          "not a list of fields",
		"serviceEntryVisibility: SOME": "parse the mesh configuration: serviceEntryVisibility: it is a message",
		"discoverySelectors: [{matchExpressions: [{key: a, operator: Sometimes}]}]": "discoverySelectors[0]",
		"enableTracing: maybe":                         "meshConfig.enableTracing",
		"outboundTrafficPolicy: {mode: REGISTRY_ONLI}": `meshConfig.outboundTrafficPolicy.mode: "REGISTRY_ONLI" is not one of REGISTRY_ONLY, ALLOW_ANY`,
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// following collects what a follower says.
type following struct {
	t        *testing.T
	settings chan Settings
	problems chan error
}

func follow(t *testing.T, s Source) *following {
	t.Helper()
	f := &following{t, make(chan Settings, 16), make(chan error, 16)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- s.Follow(ctx, func(s Settings) { f.settings <- s }, func(err error) { f.problems <- err })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *following) trustDomain(want string) {
	f.t.Helper()
	for {
		select {
		case s := <-f.settings:
			if s.Proto.TrustDomain == want {
				return
			}
		case <-time.After(30 * time.Second):
			f.t.Fatalf("the trust domain never is %q", want)
		}
	}
}

func (f *following) problem(want string) {
	f.t.Helper()
	select {
	case err := <-f.problems:
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			f.t.Fatalf("problem %v, want %q", err, want)
		}
	case <-time.After(30 * time.Second):
		f.t.Fatalf("no problem with %q", want)
	}
}

func configMap(name, mesh string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "istio-system"}, Data: map[string]string{"mesh": mesh}}
}

func TestConfigMaps(t *testing.T) {
	api := fake.NewClientset(configMap("istio-canary", "trustDomain: one"))
	s := Source{API: api, Namespace: "istio-system", Name: ConfigMapName("canary"), Shared: "shared", Log: slog.New(slog.DiscardHandler)}
	loaded, err := s.Load(t.Context())
	if err != nil || loaded.Proto.TrustDomain != "one" {
		t.Fatalf("loaded %v, %v", loaded.Proto, err)
	}
	f := follow(t, s)
	maps := api.CoreV1().ConfigMaps("istio-system")
	update := func(name, mesh string) {
		t.Helper()
		if _, err := maps.Update(t.Context(), configMap(name, mesh), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	f.trustDomain("one")
	kubetest.AwaitWatches(t, api, "configmaps", 2)
	update("istio-canary", "trustDomain: two")
	f.trustDomain("two")
	update("istio-canary", "trustDomain: [")
	f.problem("parse the mesh configuration")
	update("istio-canary", "accessLogFile: /dev/stdout")
	f.trustDomain("cluster.local")
	f.problem("")
	if _, err := maps.Create(t.Context(), configMap("shared", "trustDomain: theirs"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	f.trustDomain("theirs")
	if err := maps.Delete(t.Context(), "istio-canary", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.problem("is gone")
}

func TestAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mesh")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("trustDomain: one")
	s := Source{File: file, Log: slog.New(slog.DiscardHandler)}
	if loaded, err := s.Load(t.Context()); err != nil || loaded.Proto.TrustDomain != "one" {
		t.Fatalf("loaded %v, %v", loaded.Proto, err)
	}
	f := follow(t, s)
	f.trustDomain("one")
	write("trustDomain: two")
	f.trustDomain("two")
}
