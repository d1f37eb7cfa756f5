// Package crl knows which certificates their authorities have revoked (RFC 5280, section 5).
//
// There are two rules. By that of the mesh ([Lists.Revoked]) a certificate is refused when a list of its issuer has it. By that of
// Envoy ([Lists.Vouch]) each certificate of a chain needs a list of its issuer that counts now and does not have it: who configures one
// list needs one of each authority on the way.
package crl

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"
)

// blockType is what lists are in PEM.
const blockType = "X509 CRL"

// reasonRemove says of an entry that its certificate is no longer on hold.
const reasonRemove = 8

// Lists are revocation lists in force together. They are immutable and safe for concurrent use; nil has none.
type Lists struct {
	all []*list
	sum [sha256.Size]byte // of the text
}

// list is one of them, indexed.
type list struct {
	parsed  *x509.RevocationList // without its entries
	revoked map[string]struct{}  // serial numbers
	scope   scope

	mu      sync.Mutex                     // guards signers
	signers map[[sha256.Size]byte]struct{} // certificates that have signed the list
}

// maxSigners bounds what a list remembers: peers of the mesh send issuers that nobody has verified.
const maxSigners = 16

// Parse reads one list in DER, or several in PEM; nil when there is nothing but white space. What it cannot judge by is an error: a block of
// something else or that is cut off, and a list with a critical extension that is not understood, as those of indirect and delta lists.
func Parse(data []byte) (*Lists, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil
	}
	begun := bytes.Count(data, []byte("-----BEGIN "))
	if begun == 0 {
		one, err := parseList(data)
		if err != nil {
			return nil, err
		}
		return &Lists{[]*list{one}, sha256.Sum256(data)}, nil
	}
	out := &Lists{sum: sha256.Sum256(data)}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != blockType {
			return nil, fmt.Errorf("a PEM block of type %q, want %s", block.Type, blockType)
		}
		one, err := parseList(block.Bytes)
		if err != nil {
			return nil, err
		}
		out.all = append(out.all, one)
	}
	// pem.Decode passes over what it cannot read.
	if len(out.all) != begun {
		return nil, errors.New("a PEM block that is cut off or broken")
	}
	return out, nil
}

func parseList(der []byte) (*list, error) {
	parsed, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("not a list of revoked certificates: %w", err)
	}
	l := &list{revoked: make(map[string]struct{}, len(parsed.RevokedCertificateEntries)), signers: map[[sha256.Size]byte]struct{}{}}
	if l.scope, err = scopeOf(parsed); err != nil {
		return nil, fmt.Errorf("the list of %q: %w", parsed.Issuer, err)
	}
	for i := range parsed.RevokedCertificateEntries {
		entry := &parsed.RevokedCertificateEntries[i]
		for _, extension := range entry.Extensions {
			if extension.Critical {
				return nil, fmt.Errorf("the list of %q: the critical extension %s of an entry is not supported", parsed.Issuer, extension.Id)
			}
		}
		if entry.ReasonCode != reasonRemove {
			l.revoked[serial(entry.SerialNumber)] = struct{}{}
		}
	}
	// They may be many, and are all in the index.
	parsed.RevokedCertificateEntries, parsed.RevokedCertificates = nil, nil //nolint:staticcheck // the old form of the same
	l.parsed = parsed
	return l, nil
}

func serial(n *big.Int) string { return n.Text(62) }

// Len is how many lists there are.
func (l *Lists) Len() int {
	if l == nil {
		return 0
	}
	return len(l.all)
}

// Same is whether both are of the same text.
func (l *Lists) Same(other *Lists) bool {
	return l == other || l != nil && other != nil && l.sum == other.sum
}

// has is whether the list names a certificate, whoever has signed either.
func (l *list) has(cert *x509.Certificate) bool {
	_, ok := l.revoked[serial(cert.SerialNumber)]
	return ok
}

// by is whether an authority has signed the list, and may sign lists. That it has is remembered, as it is asked at each handshake.
func (l *list) by(issuer *x509.Certificate) bool {
	if !bytes.Equal(l.parsed.RawIssuer, issuer.RawSubject) {
		return false
	}
	key := sha256.Sum256(issuer.Raw)
	l.mu.Lock()
	_, known := l.signers[key]
	l.mu.Unlock()
	if known {
		return true
	}
	if l.parsed.CheckSignatureFrom(issuer) != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.signers) < maxSigners {
		l.signers[key] = struct{}{}
	}
	return true
}

// untimely says why the list does not count now; "" when it does.
func (l *list) untimely(now time.Time) string {
	switch next := l.parsed.NextUpdate; {
	case now.Before(l.parsed.ThisUpdate):
		return "counts from " + l.parsed.ThisUpdate.UTC().Format(time.RFC3339)
	case !next.IsZero() && now.After(next):
		return "has expired at " + next.UTC().Format(time.RFC3339)
	}
	return ""
}

// Belongs returns an error when no list is signed by any of the authorities: no certificate under them could ever be vouched for.
func (l *Lists) Belongs(authorities []*x509.Certificate) error {
	if l.Len() == 0 {
		return nil
	}
	named := false
	for _, one := range l.all {
		if slices.ContainsFunc(authorities, one.by) {
			return nil
		}
		named = named || slices.ContainsFunc(authorities, func(c *x509.Certificate) bool { return bytes.Equal(one.parsed.RawIssuer, c.RawSubject) })
	}
	if named {
		return fmt.Errorf("the list of %q is not signed by the key of the authority that is trusted", l.all[0].parsed.Issuer)
	}
	return fmt.Errorf("the list is of %q, which is none of the authorities that are trusted", l.all[0].parsed.Issuer)
}

// Expired names an issuer whose lists all have expired; "" when there is none.
func (l *Lists) Expired(now time.Time) string {
	if l.Len() == 0 {
		return ""
	}
	fresh := map[string]bool{}
	for _, one := range l.all {
		if next := one.parsed.NextUpdate; next.IsZero() || !now.After(next) {
			fresh[string(one.parsed.RawIssuer)] = true
		}
	}
	for _, one := range l.all {
		if !fresh[string(one.parsed.RawIssuer)] {
			return one.parsed.Issuer.String()
		}
	}
	return ""
}
