package testkit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"time"
)

// RootPEM is the root's certificate in PEM form.
func (c *CA) RootPEM() []byte { return encode("CERTIFICATE", c.Root.Raw) }

// Named makes a key and its certificate for a DNS name, of a server or a client outside of the mesh. Leaf is set.
func (c *CA) Named(name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 63))
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: c.Root.NotBefore, NotAfter: c.Root.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, c.Root, key.Public(), c.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// KeyPair is a certificate of Named and its key in PEM form, as files and Secrets have them.
func KeyPair(c tls.Certificate) (certificate, key []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	return encode("CERTIFICATE", c.Certificate[0]), encode("PRIVATE KEY", der), err
}

// Revoke signs a list of revoked certificates, in PEM form, which counts until a given time.
func (c *CA) Revoke(until time.Time, revoked ...*x509.Certificate) ([]byte, error) {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: c.Root.NotBefore, NextUpdate: until}
	for _, r := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: r.SerialNumber, RevocationTime: r.NotBefore})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, c.Root, c.key)
	return encode("X509 CRL", der), err
}
