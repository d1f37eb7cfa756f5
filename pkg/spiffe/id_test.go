package spiffe_test

import (
	"crypto/x509"
	"net/url"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

func TestParseIsStrict(t *testing.T) {
	want := spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "cart"}
	got, err := spiffe.Parse("spiffe://cluster.local/ns/shop/sa/cart")
	if err != nil || got != want {
		t.Fatalf("%v, %v", got, err)
	}
	if got.String() != "spiffe://cluster.local/ns/shop/sa/cart" || got.Principal() != "cluster.local/ns/shop/sa/cart" || got.URL().String() != got.String() {
		t.Errorf("forms %s %s %s", got, got.Principal(), got.URL())
	}
	for _, bad := range []string{
		"", "cluster.local/ns/shop/sa/cart", "SPIFFE://cluster.local/ns/shop/sa/cart", "spiffe:///ns/shop/sa/cart",
		"spiffe://cluster.local/ns/shop/sa/", "spiffe://cluster.local/ns//sa/cart", "spiffe://cluster.local/ns/shop/sa/cart/x",
		"spiffe://cluster.local/ns/shop/sa/cart?x", "spiffe://cluster.local:1/ns/shop/sa/cart", "spiffe://u@td/ns/shop/sa/cart",
		"spiffe://td/ns/sh%6fp/sa/cart", "spiffe://td/ns/../sa/cart", "spiffe://TD/ns/shop/sa/cart", "spiffe://td/sa/cart/ns/shop",
	} {
		if id, err := spiffe.Parse(bad); err == nil {
			t.Errorf("%q was read as %v", bad, id)
		}
	}
}

func TestFromCertificateTakesTheFirstSPIFFEName(t *testing.T) {
	other, _ := url.Parse("https://example.com/")
	id := spiffe.ID{TrustDomain: "td", Namespace: "n", ServiceAccount: "s"}
	got, ok := spiffe.FromCertificate(&x509.Certificate{URIs: []*url.URL{other, id.URL()}})
	if !ok || got != id {
		t.Errorf("%v %v", got, ok)
	}
	if _, ok := spiffe.FromCertificate(&x509.Certificate{URIs: []*url.URL{other}}); ok {
		t.Error("a certificate without a SPIFFE name has an identity")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("spiffe://cluster.local/ns/shop/sa/cart")
	f.Fuzz(func(t *testing.T, uri string) {
		id, err := spiffe.Parse(uri)
		if err == nil && id.String() != uri {
			t.Errorf("%q reads as %q", uri, id)
		}
	})
}
