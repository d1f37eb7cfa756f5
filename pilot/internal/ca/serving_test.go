package ca_test

import (
	"crypto/tls"
	"sync/atomic"
	"testing"

	"github.com/isthmus-mesh/isthmus/pilot/internal/ca"
)

// A name that becomes the control plane's gets into its certificate when a client asks for it; no other does.
func TestServingTakesUpTags(t *testing.T) {
	const usual, tag, foreign = "istiod.istio-system.svc", "istiod-revision-tag-prod.istio-system.svc", "kubernetes.default.svc"
	var tagged atomic.Bool
	serving := ca.NewServing(open(t, t.TempDir()), []string{usual}, func(name string) bool { return name == tag && tagged.Load() })
	get := func(name string) *tls.Certificate {
		t.Helper()
		cert, err := serving.Get(&tls.ClientHelloInfo{ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	first := get(usual)
	for _, name := range []string{usual, tag, foreign, ""} {
		if get(name) != first {
			t.Errorf("%q made another certificate", name)
		}
	}
	tagged.Store(true)
	second := get("Istiod-Revision-Tag-Prod.istio-system.svc")
	for _, name := range []string{usual, tag} {
		if err := second.Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if second.Leaf.VerifyHostname(foreign) == nil {
		t.Error("a foreign name is in the certificate")
	}
	if get(tag) != second || get(usual) != second {
		t.Error("it is made anew for each client")
	}
}
