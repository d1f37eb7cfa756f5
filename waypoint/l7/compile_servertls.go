package l7

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

func compileServerTLS(p *tlsv3.DownstreamTlsContext) (*ServerTLS, error) {
	t, err := compileCommonTLS(p.GetCommonTlsContext())
	if err != nil {
		return nil, strict.At(err, "common_tls_context")
	}
	s := &ServerTLS{
		Certificates: t.certificates, Files: t.files, Validation: t.validation, CAFile: t.caFile, Revocation: t.revocation, Validates: t.validates,
		RequireClient: p.GetRequireClientCertificate().GetValue(), ALPN: t.alpn, MinVersion: t.minimum, MaxVersion: t.maximum, PeerSANs: t.sans,
	}
	if len(s.Certificates)+len(s.Files) == 0 {
		return nil, strict.Errorf("common_tls_context.tls_certificate_sds_secret_configs", "is required")
	}
	if t.caInline != "" {
		if s.Trusted, err = ParseAuthorities([]byte(t.caInline), nil); err != nil {
			return nil, strict.Errorf("common_tls_context.validation_context", "%v", err)
		}
	}
	// What is asked of clients must be verified by somebody.
	switch {
	case s.Validates && s.Validation == "" && s.CAFile == "" && s.Trusted == nil:
		return nil, strict.Errorf("common_tls_context.validation_context.trusted_ca", "must be a file, or a text")
	case !s.Validates && (s.RequireClient || len(s.PeerSANs)+len(t.hashes)+len(t.spki) > 0):
		return nil, strict.Errorf("common_tls_context.validation_context", "needs trusted_ca, or a secret that has it, where clients are judged by their certificates")
	}
	if s.CipherSuites, err = cipherSuites(t.ciphers); err != nil {
		return nil, strict.At(err, "common_tls_context.tls_params")
	}
	const pins = "common_tls_context.validation_context."
	for _, text := range t.hashes {
		sum, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
		if err != nil || len(sum) != sha256.Size {
			return nil, strict.Errorf(pins+"verify_certificate_hash", "must be SHA-256 in hexadecimal")
		}
		s.PinnedCertificates = append(s.PinnedCertificates, [32]byte(sum))
	}
	for _, text := range t.spki {
		sum, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(sum) != sha256.Size {
			return nil, strict.Errorf(pins+"verify_certificate_spki", "must be SHA-256 in base64")
		}
		s.PinnedKeys = append(s.PinnedKeys, [32]byte(sum))
	}
	return s, nil
}

// cipherSuites reads the names that Envoy has for them. Groups of equal preference, [A|B], are lists here: crypto/tls has an order of
// its own. Those that it does not have are left out, as long as there are others.
func cipherSuites(names []string) ([]uint16, error) {
	known := map[string]uint16{}
	for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		known[envoyName(s.Name)] = s.ID
	}
	var out []uint16
	given := 0
	for _, group := range names {
		for name := range strings.SplitSeq(strings.Trim(group, "[]"), "|") {
			given++
			if id, ok := known[name]; ok {
				out = append(out, id)
			}
		}
	}
	if given > 0 && len(out) == 0 {
		return nil, strict.Errorf("cipher_suites", "none of %s is supported", strings.Join(names, ", "))
	}
	return out, nil
}

// envoyName turns TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 into ECDHE-RSA-AES128-GCM-SHA256, as BoringSSL has it.
func envoyName(name string) string {
	name = strings.TrimPrefix(name, "TLS_")
	key, bulk, ok := strings.Cut(name, "_WITH_")
	if !ok {
		return name
	}
	bulk = strings.NewReplacer("AES_128", "AES128", "AES_256", "AES256", "CHACHA20_POLY1305_SHA256", "CHACHA20_POLY1305", "_CBC_", "_").Replace(bulk)
	if key != "RSA" {
		bulk = key + "_" + bulk
	}
	return strings.ReplaceAll(bulk, "_", "-")
}
