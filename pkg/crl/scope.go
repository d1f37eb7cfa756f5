package crl

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
)

// scope is which certificates of its issuer a list is about: all of them unless an issuing distribution point says less (RFC 5280, section
// 5.2.5).
type scope struct {
	onlyUsers, onlyAuthorities bool
	// points are general names in DER, of which a certificate has to have one among its distribution points; empty for any.
	points [][]byte
}

// distributionPointName is one of RFC 5280.
type distributionPointName struct {
	FullName     []asn1.RawValue  `asn1:"optional,tag:0"`
	RelativeName pkix.RDNSequence `asn1:"optional,tag:1"`
}

// issuingPoint is the extension IssuingDistributionPoint.
type issuingPoint struct {
	Name           distributionPointName `asn1:"optional,tag:0"`
	OnlyUsers      bool                  `asn1:"optional,tag:1"`
	OnlyCAs        bool                  `asn1:"optional,tag:2"`
	SomeReasons    asn1.BitString        `asn1:"optional,tag:3"`
	Indirect       bool                  `asn1:"optional,tag:4"`
	OnlyAttributes bool                  `asn1:"optional,tag:5"`
}

// distributionPoint is one of the extension CRLDistributionPoints of a certificate.
type distributionPoint struct {
	Name    distributionPointName `asn1:"optional,tag:0"`
	Reasons asn1.BitString        `asn1:"optional,tag:1"`
	Issuer  asn1.RawValue         `asn1:"optional,tag:2"`
}

func idIssuingPoint() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 28} }

func idDistributionPoints() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 31} }

// scopeOf reads the extensions of a list. Those that change the meaning of its entries must be understood.
func scopeOf(l *x509.RevocationList) (s scope, err error) {
	for _, extension := range l.Extensions {
		switch {
		case extension.Id.Equal(idIssuingPoint()):
			if s, err = readIssuingPoint(extension.Value); err != nil {
				return s, fmt.Errorf("issuing distribution point: %w", err)
			}
		case extension.Critical:
			return s, fmt.Errorf("its critical extension %s is not supported", extension.Id)
		}
	}
	return s, nil
}

func readIssuingPoint(der []byte) (scope, error) {
	var p issuingPoint
	if rest, err := asn1.Unmarshal(der, &p); err != nil || len(rest) > 0 {
		return scope{}, errors.New("cannot be read")
	}
	switch {
	case p.Indirect:
		return scope{}, errors.New("lists of certificates of other issuers are not supported")
	case p.SomeReasons.BitLength > 0:
		return scope{}, errors.New("lists for some reasons only are not supported")
	case p.OnlyAttributes:
		return scope{}, errors.New("lists of attribute certificates are not supported")
	case len(p.Name.RelativeName) > 0:
		return scope{}, errors.New("relative names are not supported")
	case p.OnlyUsers && p.OnlyCAs:
		return scope{}, errors.New("it is about no certificates at all")
	}
	s := scope{onlyUsers: p.OnlyUsers, onlyAuthorities: p.OnlyCAs}
	for _, name := range p.Name.FullName {
		s.points = append(s.points, name.FullBytes)
	}
	return s, nil
}

// covers is whether the list is about a certificate of its issuer.
func (s scope) covers(cert *x509.Certificate) bool {
	authority := cert.BasicConstraintsValid && cert.IsCA
	if s.onlyUsers && authority || s.onlyAuthorities && !authority {
		return false
	}
	if len(s.points) == 0 {
		return true
	}
	for _, extension := range cert.Extensions {
		if !extension.Id.Equal(idDistributionPoints()) {
			continue
		}
		var points []distributionPoint
		if rest, err := asn1.Unmarshal(extension.Value, &points); err != nil || len(rest) > 0 {
			return false
		}
		return slices.ContainsFunc(points, s.at)
	}
	return false
}

// at is whether the list is found at a distribution point. Those of other issuers and of some reasons have other lists.
func (s scope) at(p distributionPoint) bool {
	if p.Reasons.BitLength > 0 || len(p.Issuer.FullBytes) > 0 {
		return false
	}
	return slices.ContainsFunc(p.Name.FullName, func(name asn1.RawValue) bool {
		return slices.ContainsFunc(s.points, func(point []byte) bool { return bytes.Equal(point, name.FullBytes) })
	})
}
