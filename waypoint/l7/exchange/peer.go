package exchange

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"slices"
	"strings"
)

// Peer is what of a client's certificate is passed on (x-forwarded-client-cert). It is immutable.
type Peer struct {
	// Hash is the SHA-256 of the certificate in hexadecimal, Certificate the PEM, escaped for an URL.
	Hash, Certificate string
	// Subject is written as RFC 2253 has it.
	Subject string
	// URIs and DNS are alternative names.
	URIs, DNS []string
	// By are the URIs of the certificate that was presented to the client.
	By []string
}

// NewPeer reads a client's certificate, and the one that was presented to it, which may be nil.
func NewPeer(c, presented *x509.Certificate) *Peer {
	sum := sha256.Sum256(c.Raw)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	p := &Peer{
		Hash:        hex.EncodeToString(sum[:]),
		Certificate: strings.NewReplacer("\n", "%0A", " ", "%20", "+", "%2B", "/", "%2F", "=", "%3D").Replace(string(text)),
	}
	var names pkix.RDNSequence
	if _, err := asn1.Unmarshal(c.RawSubject, &names); err == nil { // it was parsed before
		for _, set := range names {
			slices.Reverse(set) // the whole name is written from its end
		}
		p.Subject = escaped(names.String())
	}
	if presented != nil {
		p.By = uris(presented)
	}
	p.URIs = uris(c)
	for _, name := range c.DNSNames {
		p.DNS = append(p.DNS, escaped(name))
	}
	return p
}

// escaped writes what is no printable ASCII as RFC 2253 has it, so that no name, whoever has signed it, ends the header that it is
// passed on in.
func escaped(name string) string {
	const digits = "0123456789ABCDEF"
	strange := func(b byte) bool { return b < ' ' || b > '~' }
	if !slices.ContainsFunc([]byte(name), strange) {
		return name
	}
	out := make([]byte, 0, len(name)+8)
	for i := range len(name) {
		if b := name[i]; strange(b) {
			out = append(out, '\\', digits[b>>4], digits[b&15])
		} else {
			out = append(out, b)
		}
	}
	return string(out)
}

func uris(c *x509.Certificate) (out []string) {
	for _, u := range c.URIs {
		out = append(out, escaped(u.String()))
	}
	return out
}
