// Package spiffe names workloads: SPIFFE IDs of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>.
package spiffe

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
)

const scheme = "spiffe://"

// ID is the identity of a workload. It is comparable; the zero ID is no identity.
type ID struct{ TrustDomain, Namespace, ServiceAccount string }

// Parse reads "spiffe://td/ns/N/sa/S" and nothing looser: no port, query, fragment, escapes or empty parts
// (SPIFFE-ID specification, section 2).
func Parse(uri string) (ID, error) {
	rest, ok := strings.CutPrefix(uri, scheme)
	if !ok {
		return ID{}, fmt.Errorf("identity %q: it does not start with %s", uri, scheme)
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 5 || parts[1] != "ns" || parts[3] != "sa" {
		return ID{}, fmt.Errorf("identity %q: it is not of the form %s<trust domain>/ns/<namespace>/sa/<service account>", uri, scheme)
	}
	if !allOf(parts[0], isTrustDomainByte) {
		return ID{}, fmt.Errorf("identity %q: the trust domain may hold lower-case letters, digits, '.', '-' and '_' only", uri)
	}
	if !validSegment(parts[2]) || !validSegment(parts[4]) {
		return ID{}, fmt.Errorf("identity %q: namespace and service account may hold letters, digits, '.', '-' and '_' only", uri)
	}
	return ID{TrustDomain: parts[0], Namespace: parts[2], ServiceAccount: parts[4]}, nil
}

// String is the URI; empty for no identity.
func (id ID) String() string {
	if id.IsZero() {
		return ""
	}
	return scheme + id.Principal()
}

// Principal is the URI without its scheme, as policies write it; empty for no identity.
func (id ID) Principal() string {
	if id.IsZero() {
		return ""
	}
	return id.TrustDomain + "/ns/" + id.Namespace + "/sa/" + id.ServiceAccount
}

// IsZero reports whether there is no identity.
func (id ID) IsZero() bool { return id == ID{} }

// URL is the form that certificates hold.
func (id ID) URL() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: id.TrustDomain, Path: "/ns/" + id.Namespace + "/sa/" + id.ServiceAccount}
}

// FromCertificate returns the first URI name of the certificate that is a SPIFFE ID of our form.
func FromCertificate(cert *x509.Certificate) (ID, bool) {
	for _, uri := range cert.URIs {
		if id, err := Parse(uri.String()); err == nil {
			return id, true
		}
	}
	return ID{}, false
}

func validSegment(s string) bool {
	return s != "." && s != ".." && allOf(s, func(c byte) bool { return isTrustDomainByte(c) || c >= 'A' && c <= 'Z' })
}

func isTrustDomainByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_'
}

// allOf is false for the empty string.
func allOf(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return s != ""
}
