package exchange

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
)

// TestNamesOfAPeerEndNoHeader: an authority may have signed any bytes as a name.
func TestNamesOfAPeerEndNoHeader(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader,
		&x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a\r\nx-admin: ü\"b", Organization: []string{"o"}}, DNSNames: []string{"d\r\ne", "plain"}},
		&x509.Certificate{SerialNumber: big.NewInt(2)}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	p := NewPeer(c, nil)
	if want := `CN=a\0D\0Ax-admin: \C3\BC\"b,O=o`; p.Subject != want {
		t.Errorf("subject %q, want %q", p.Subject, want)
	}
	if want := `d\0D\0Ae plain`; strings.Join(p.DNS, " ") != want {
		t.Errorf("names %q, want %q", p.DNS, want)
	}
	if strings.ContainsAny(p.Certificate, "\r\n") {
		t.Errorf("certificate %q", p.Certificate)
	}
}
