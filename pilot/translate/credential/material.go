package credential

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/isthmus-mesh/isthmus/pkg/crl"
)

// pair are the keys of a Secret under which a certificate and its private key may be: of type tls, and of generic ones.
type pair struct{ certificate, key string }

func pairs() []pair { return []pair{{"cert", "key"}, {"tls.crt", "tls.key"}} }

// vouching are the keys under which certificates of authorities and the lists of those that they have revoked may be: of generic Secrets,
// and of type tls.
type vouching struct{ authority, revoked string }

func vouchings() []vouching { return []vouching{{"cacert", "crl"}, {"ca.crt", "ca.crl"}} }

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

// bundle are the certificates of an object, and the lists of those that are revoked, if it has any. A list under the key that goes with the
// other form counts too: whoever put it there wants certificates to be checked.
func bundle(data map[string][]byte) (roots, revoked []byte, err error) {
	for i, form := range vouchings() {
		roots := data[form.authority]
		if len(roots) == 0 {
			continue
		}
		trusted, err := certificates(roots)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", form.authority, err)
		}
		for _, key := range []string{form.revoked, vouchings()[1-i].revoked} {
			if len(data[key]) == 0 {
				continue
			}
			if err := revocations(data[key], trusted); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", key, err)
			}
			return roots, data[key], nil
		}
		return roots, nil, nil
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
func certificates(text []byte) (all []*x509.Certificate, err error) {
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		one, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			return nil, errors.New("it has something else than certificates in PEM")
		}
		all = append(all, one)
	}
	if len(all) == 0 {
		return nil, errors.New("it has no certificate in PEM")
	}
	return all, nil
}

// revocations checks lists as proxies do, which want them in PEM, and one of the authorities: without it they would refuse everybody. A list
// that has expired is for them to judge.
func revocations(text []byte, trusted []*x509.Certificate) error {
	if block, _ := pem.Decode(text); block == nil {
		return errors.New("it has no list of revoked certificates in PEM: convert it with openssl crl -inform DER -outform PEM")
	}
	lists, err := crl.Parse(text)
	if err != nil {
		return fmt.Errorf("it has something else than lists of revoked certificates in PEM, or one that is not supported: %w", err)
	}
	if err := lists.Belongs(trusted); err != nil {
		return fmt.Errorf("%w: put the lists of the authorities beside them", err)
	}
	return nil
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}
