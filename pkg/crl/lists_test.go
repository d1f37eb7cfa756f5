package crl

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"
)

// authority signs certificates and lists.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	parent := a.cert
	if parent == nil {
		parent = template
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

func authorityTemplate(name string, number int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(number), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func newRoot(t *testing.T, name string) authority {
	t.Helper()
	key := newKey(t)
	cert := authority{t: t, key: key}.sign(authorityTemplate(name, 1), key)
	return authority{t, cert, key}
}

// below is an authority that a signs.
func (a authority) below(name string, number int64) authority {
	a.t.Helper()
	key := newKey(a.t)
	return authority{a.t, a.sign(authorityTemplate(name, number), key), key}
}

func (a authority) leaf(number int64) *x509.Certificate {
	a.t.Helper()
	return a.sign(&x509.Certificate{SerialNumber: big.NewInt(number), Subject: pkix.Name{CommonName: "leaf"}}, a.key)
}

func (a authority) text(l *x509.RevocationList, serials ...int64) []byte {
	a.t.Helper()
	l.Number = big.NewInt(1)
	for _, s := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der})
}

func current() *x509.RevocationList {
	return &x509.RevocationList{ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
}

func (a authority) list(serials ...int64) []byte { return a.text(current(), serials...) }

func parse(t *testing.T, texts ...[]byte) *Lists {
	t.Helper()
	var all []byte
	for _, text := range texts {
		all = append(all, text...)
	}
	lists, err := Parse(all)
	if err != nil {
		t.Fatal(err)
	}
	return lists
}

// TestVouch: with lists in force each certificate of the chain needs one, as with Envoy.
func TestVouch(t *testing.T) {
	root := newRoot(t, "root")
	middle := root.below("middle", 7)
	leaf := middle.leaf(10)
	imposter := newRoot(t, "middle")
	chain := []*x509.Certificate{leaf, middle.cert, root.cert}
	old := &x509.RevocationList{ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: time.Now().Add(-time.Hour)}
	later := &x509.RevocationList{ThisUpdate: time.Now().Add(time.Hour), NextUpdate: time.Now().Add(2 * time.Hour)}
	for name, tt := range map[string]struct {
		lists [][]byte
		want  error
		says  string
	}{
		"one of each":                 {[][]byte{root.list(), middle.list(11)}, nil, ""},
		"the leaf":                    {[][]byte{root.list(), middle.list(10)}, ErrRevoked, "serial number 10"},
		"the authority in the middle": {[][]byte{root.list(7), middle.list()}, ErrRevoked, "serial number 7"},
		"the root, by itself":         {[][]byte{root.list(1), middle.list()}, ErrRevoked, "serial number 1"},
		"none of the root":            {[][]byte{middle.list()}, ErrNoList, "there is none"},
		"none of the middle":          {[][]byte{root.list()}, ErrNoList, "there is none"},
		"of another key":              {[][]byte{root.list(), imposter.list()}, ErrNoList, "another signature"},
		"another key revokes":         {[][]byte{root.list(), middle.list(), imposter.list(10)}, nil, ""},
		"expired":                     {[][]byte{root.list(), middle.text(old)}, ErrNoList, "has expired"},
		"not yet":                     {[][]byte{root.list(), middle.text(later)}, ErrNoList, "counts from"},
		"an expired one beside":       {[][]byte{root.list(), middle.text(old), middle.list()}, nil, ""},
		"revoked by the expired one":  {[][]byte{root.list(), middle.text(old, 10), middle.list()}, ErrRevoked, "serial number 10"},
		"one that never expires":      {[][]byte{root.list(), middle.text(&x509.RevocationList{ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(1000 * time.Hour)})}, nil, ""},
	} {
		err := parse(t, tt.lists...).Vouch(chain, []*x509.Certificate{root.cert}, time.Now(), false)
		if !errors.Is(err, tt.want) || tt.want != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := parse(t, middle.list()).Vouch(chain, nil, time.Now(), true); err != nil {
		t.Errorf("of the leaf only: %v", err)
	}
	if err := parse(t, root.list(), middle.list(10)).Vouch(chain, nil, time.Now(), true); !errors.Is(err, ErrRevoked) {
		t.Errorf("of the leaf only, revoked: %v", err)
	}
}

// TestChainsThatEndBelowARoot: what is trusted directly may still be revoked by a root that is trusted too.
func TestChainsThatEndBelowARoot(t *testing.T) {
	root := newRoot(t, "root")
	middle := root.below("middle", 7)
	chain := []*x509.Certificate{middle.leaf(10), middle.cert}
	both := []*x509.Certificate{middle.cert, root.cert}
	if err := parse(t, root.list(), middle.list()).Vouch(chain, both, time.Now(), false); err != nil {
		t.Errorf("good: %v", err)
	}
	if err := parse(t, root.list(7), middle.list()).Vouch(chain, both, time.Now(), false); !errors.Is(err, ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
	if err := parse(t, root.list(), middle.list()).Vouch(chain, both[:1], time.Now(), false); !errors.Is(err, ErrNoList) || !strings.Contains(err.Error(), "its issuer") {
		t.Errorf("without the root: %v", err)
	}
}

// TestRevoked: in the mesh only what a list has is refused.
func TestRevoked(t *testing.T) {
	root, imposter := newRoot(t, "root"), newRoot(t, "root")
	middle := root.below("middle", 7)
	chain := []*x509.Certificate{middle.leaf(10), middle.cert}
	roots := []*x509.Certificate{root.cert}
	for name, tt := range map[string]struct {
		lists *Lists
		want  bool
	}{
		"no lists":         {nil, false},
		"other lists":      {parse(t, newRoot(t, "other").list(10)), false},
		"others":           {parse(t, root.list(8), middle.list(11)), false},
		"the leaf":         {parse(t, middle.list(10)), true},
		"the middle":       {parse(t, root.list(7)), true},
		"of an imposter":   {parse(t, imposter.list(7)), false},
		"by another name":  {parse(t, root.list(10)), false},
		"several together": {parse(t, imposter.list(7), root.list(8), middle.list(10)), true},
	} {
		if err := tt.lists.Revoked(chain, roots); errors.Is(err, ErrRevoked) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBelongs(t *testing.T) {
	root, other := newRoot(t, "root"), newRoot(t, "other")
	trusted := []*x509.Certificate{root.cert}
	for want, lists := range map[string]*Lists{
		"":                          nil,
		"which is none of":          parse(t, other.list()),
		"is not signed by the key":  parse(t, newRoot(t, "root").list()),
		"the list is of \"CN=other": parse(t, other.list(), other.list(1)),
	} {
		if err := lists.Belongs(trusted); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	if err := parse(t, other.list(), root.list()).Belongs(trusted); err != nil {
		t.Error(err)
	}
}

func TestExpired(t *testing.T) {
	root := newRoot(t, "root")
	old := root.text(&x509.RevocationList{ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: time.Now().Add(-time.Hour)})
	if got := parse(t, old, root.list()).Expired(time.Now()); got != "" {
		t.Errorf("with a new one: %q", got)
	}
	if got := parse(t, old).Expired(time.Now()); got != "CN=root" {
		t.Errorf("old: %q", got)
	}
}

// TestScope: a list may be about some certificates of its issuer only. The others have no list then.
func TestScope(t *testing.T) {
	root := newRoot(t, "root")
	point := func(p issuingPoint) []pkix.Extension {
		t.Helper()
		der, err := asn1.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return []pkix.Extension{{Id: idIssuingPoint(), Critical: true, Value: der}}
	}
	at := func(uri string) distributionPointName {
		return distributionPointName{FullName: []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)}}}
	}
	plain := root.leaf(10)
	placed := root.sign(&x509.Certificate{SerialNumber: big.NewInt(10), CRLDistributionPoints: []string{"http://ca/a.crl", "http://ca/b.crl"}}, root.key)
	for name, tt := range map[string]struct {
		point issuingPoint
		cert  *x509.Certificate
		ok    bool
	}{
		"users":                         {issuingPoint{OnlyUsers: true}, plain, true},
		"authorities":                   {issuingPoint{OnlyCAs: true}, plain, false},
		"a place that it does not have": {issuingPoint{Name: at("http://ca/a.crl")}, plain, false},
		"one of its places":             {issuingPoint{Name: at("http://ca/b.crl")}, placed, true},
		"another place":                 {issuingPoint{Name: at("http://ca/c.crl")}, placed, false},
	} {
		l := current()
		l.ExtraExtensions = point(tt.point)
		if err := parse(t, root.text(l)).Vouch([]*x509.Certificate{tt.cert, root.cert}, nil, time.Now(), true); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, extensions := range map[string][]pkix.Extension{
		"of other issuers":  point(issuingPoint{Indirect: true}),
		"for some reasons":  point(issuingPoint{SomeReasons: asn1.BitString{Bytes: []byte{0x40}, BitLength: 2}}),
		"attributes":        point(issuingPoint{OnlyAttributes: true}),
		"about nothing":     point(issuingPoint{OnlyUsers: true, OnlyCAs: true}),
		"unreadable":        {{Id: idIssuingPoint(), Critical: true, Value: []byte{1, 2}}},
		"changes of a list": {{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}},
	} {
		l := current()
		l.ExtraExtensions = extensions
		if _, err := Parse(root.text(l)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	if lists, err := Parse([]byte("  \n")); err != nil || lists.Len() != 0 {
		t.Errorf("nothing: %v, %v", lists, err)
	}
	root := newRoot(t, "root")
	good := root.list(1)
	block, _ := pem.Decode(good)
	if lists, err := Parse(block.Bytes); err != nil || lists.Len() != 1 {
		t.Errorf("DER: %v", err)
	}
	if lists, err := Parse([]byte("what it says\n" + string(good) + "the end\n" + string(good))); err != nil || lists.Len() != 2 {
		t.Errorf("with comments: %v", err)
	}
	for name, text := range map[string]string{
		"garbage":     "garbage",
		"certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"not a list":  "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n",
		"cut off":     string(good) + string(good[:len(good)/2]),
		"broken":      string(good) + "-----BEGIN X509 CRL-----\n?\n-----END X509 CRL-----\n" + string(good),
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// TestRemovedFromHold: such an entry takes another one back.
func TestRemovedFromHold(t *testing.T) {
	root := newRoot(t, "root")
	l := current()
	l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(10), RevocationTime: time.Now(), ReasonCode: reasonRemove}}
	if err := parse(t, root.text(l)).Revoked([]*x509.Certificate{root.leaf(10)}, []*x509.Certificate{root.cert}); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		lists, err := Parse(data)
		if err != nil && lists != nil {
			t.Error("lists beside an error")
		}
	})
}
