package conformance

import (
	"bytes"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	gatewaysuite "sigs.k8s.io/gateway-api/conformance"
)

// baseManifests is the file of the suite that all tests rely on.
const baseManifests = "base/manifests.yaml"

// manifests are those of the suite but for the DNS server that only tests of UDPRoutes ask, whose profile is not run: it is the one
// image that is neither in the nodes nor made here, and the suite waits until all pods are ready.
func manifests() fs.FS { return trimmed{&gatewaysuite.Manifests} }

type trimmed struct{ fs.FS }

// Open implements fs.FS.
func (f trimmed) Open(name string) (fs.File, error) {
	if name != baseManifests {
		return f.FS.Open(name)
	}
	text, err := fs.ReadFile(f.FS, name)
	if err != nil {
		return nil, err
	}
	var kept [][]byte
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		if !dnsServer(doc) {
			kept = append(kept, doc)
		}
	}
	return fstest.MapFS{name: &fstest.MapFile{Data: bytes.Join(kept, []byte("\n---\n"))}}.Open(name)
}

func dnsServer(doc []byte) bool {
	return bytes.Contains(doc, []byte("\nkind: Deployment\n")) && bytes.Contains(doc, []byte("\n  name: coredns\n"))
}

func TestManifests(t *testing.T) {
	whole, err := gatewaysuite.Manifests.ReadFile(baseManifests)
	if err != nil {
		t.Fatal(err)
	}
	got, err := fs.ReadFile(manifests(), baseManifests)
	if err != nil {
		t.Fatal(err)
	}
	if less := strings.Count(string(whole), "\n---\n") - strings.Count(string(got), "\n---\n"); less != 1 || strings.Contains(string(got), "coredns:v") {
		t.Errorf("%d objects are left out", less)
	}
	if other, err := fs.ReadFile(manifests(), "tests/gateway-invalid-route-kind.yaml"); err != nil || len(other) == 0 {
		t.Errorf("%d bytes, %v", len(other), err)
	}
}
