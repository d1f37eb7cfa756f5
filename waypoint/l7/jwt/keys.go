package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"

	"github.com/go-jose/go-jose/v4"
)

// algorithms that Envoy's verifier knows.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512,
		jose.HS256, jose.HS384, jose.HS512, jose.EdDSA,
	}
}

func supportedAlg(alg string) bool {
	for _, a := range algorithms() {
		if string(a) == alg {
			return true
		}
	}
	return false
}

// fits is whether a key is of the kind that the algorithm needs.
func fits(key any, alg string) bool {
	switch key.(type) {
	case *rsa.PublicKey:
		return alg[0] == 'R' || alg[0] == 'P'
	case *ecdsa.PublicKey:
		return alg[:2] == "ES"
	case ed25519.PublicKey:
		return alg == "EdDSA"
	case []byte:
		return alg[0] == 'H'
	}
	return false
}

// verify checks the signature with the keys that may have made it: of the kid, when both sides name one, and of the algorithm,
// when the key names one.
func verify(keys []jose.JSONWebKey, t *token) status {
	var sig *jose.JSONWebSignature
	matched := false
	for n := range keys {
		k := &keys[n]
		if t.kid != "" && k.KeyID != "" && k.KeyID != t.kid || k.Algorithm != "" && k.Algorithm != t.alg {
			continue
		}
		matched = true
		if !fits(k.Key, t.alg) {
			continue
		}
		if sig == nil {
			var err error
			if sig, err = jose.ParseSignedCompact(t.text, algorithms()); err != nil {
				return statusVerify
			}
		}
		if _, err := sig.Verify(k.Key); err == nil {
			return statusOK
		}
	}
	if matched {
		return statusVerify
	}
	return statusNoKey
}
