package credential

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// pair are the keys of a Secret under which a certificate and its private key may be: of type tls, and of generic ones.
type pair struct{ certificate, key string }

func pairs() []pair { return []pair{{"cert", "key"}, {"tls.crt", "tls.key"}} }

// Keys of authorities, and of the lists of certificates that they have revoked.
func authorityKeys() []string { return []string{"cacert", "ca.crt"} }

func revokedKeys() []string { return []string{"crl", "ca.crl"} }

// Certificate is the resource of a certificate and its key. Errors never have anything of the content.
func Certificate(name string, data map[string][]byte) (*tlsv3.Secret, error) {
	for _, p := range pairs() {
		certificate, key := data[p.certificate], data[p.key]
		if len(certificate) == 0 && len(key) == 0 {
			continue
		}
		if len(certificate) == 0 || len(key) == 0 {
			return nil, fmt.Errorf("it has only one of %s and %s", p.certificate, p.key)
		}
		if _, err := tls.X509KeyPair(certificate, key); err != nil {
			return nil, fmt.Errorf("%s and %s are no certificate and its private key in PEM", p.certificate, p.key)
		}
		return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(certificate), PrivateKey: inline(key),
		}}}, nil
	}
	return nil, errors.New("it has no certificate: tls.crt and tls.key, or cert and key")
}

// Authority is the resource of who signs the certificates of the other side. Of several objects all are trusted: each of them has to have
// any.
func Authority(name string, objects ...map[string][]byte) (*tlsv3.Secret, error) {
	var roots, revoked []byte
	for _, data := range objects {
		r, l, err := bundle(data)
		if err != nil {
			return nil, err
		}
		roots, revoked = appendLines(roots, r), appendLines(revoked, l)
	}
	context := &tlsv3.CertificateValidationContext{TrustedCa: inline(roots)}
	if len(revoked) > 0 {
		context.Crl = inline(revoked)
	}
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{ValidationContext: context}}, nil
}

// bundle are the certificates of an object, and the lists of those that are revoked, if it has any.
func bundle(data map[string][]byte) (roots, revoked []byte, err error) {
	for _, k := range authorityKeys() {
		if len(data[k]) == 0 {
			continue
		}
		if err := certificates(data[k]); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", k, err)
		}
		for _, r := range revokedKeys() {
			if len(data[r]) == 0 {
				continue
			}
			if err := revocations(data[r]); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", r, err)
			}
			return data[k], data[r], nil
		}
		return data[k], nil, nil
	}
	return nil, nil, errors.New("it has no certificate of an authority: cacert or ca.crt")
}

// appendLines joins PEM, whose blocks begin on lines of their own.
func appendLines(to, more []byte) []byte {
	if len(to) > 0 && len(more) > 0 && to[len(to)-1] != '\n' {
		to = append(to, '\n')
	}
	return append(to, more...)
}

// certificates checks that there is nothing but certificates, at least one.
func certificates(text []byte) error {
	n := 0
	for rest := text; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if _, err := x509.ParseCertificate(block.Bytes); block.Type != "CERTIFICATE" || err != nil {
			return errors.New("it has something else than certificates in PEM")
		}
	}
	if n == 0 {
		return errors.New("it has no certificate in PEM")
	}
	return nil
}

func revocations(text []byte) error {
	n := 0
	for rest := text; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if _, err := x509.ParseRevocationList(block.Bytes); err != nil {
			return errors.New("it has something else than lists of revoked certificates in PEM")
		}
	}
	if n == 0 {
		return errors.New("it has no list of revoked certificates in PEM")
	}
	return nil
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}
