//go:build e2e

package suites

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"

	. "github.com/onsi/gomega"
)

// signer issues tokens.
type signer struct{ key *ecdsa.PrivateKey }

func newSigner() signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	Expect(err).NotTo(HaveOccurred())
	return signer{key}
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwks is the key set that tokens are verified with.
func (s signer) jwks() string {
	public, err := s.key.PublicKey.Bytes() // 4, x, y
	Expect(err).NotTo(HaveOccurred())
	return fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","kid":"e2e","x":%q,"y":%q}]}`, encode(public[1:33]), encode(public[33:]))
}

func (s signer) token(issuer, group string) string {
	head := encode([]byte(`{"alg":"ES256","kid":"e2e","typ":"JWT"}`))
	body := encode(fmt.Appendf(nil, `{"iss":%q,"sub":"somebody","group":%q,"exp":%d}`, issuer, group, time.Now().Add(time.Hour).Unix()))
	digest := sha256.Sum256([]byte(head + "." + body))
	r, t, err := ecdsa.Sign(rand.Reader, s.key, digest[:])
	Expect(err).NotTo(HaveOccurred())
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	t.FillBytes(signature[32:])
	return head + "." + body + "." + encode(signature)
}
