package policy

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
)

// usableKeys returns the part of a JSON Web Key Set that Envoy can verify tokens with, and false when there is none: Envoy refuses a
// whole listener for a set in which no key is usable.
func usableKeys(text string) (string, bool) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal([]byte(text), &set) != nil {
		return "", false
	}
	var usable []json.RawMessage
	for _, raw := range set.Keys {
		if usableKey(raw) {
			usable = append(usable, raw)
		}
	}
	switch len(usable) {
	case 0:
		return "", false
	case len(set.Keys):
		return text, true
	}
	set.Keys = usable
	out, err := json.Marshal(set)
	return string(out), err == nil
}

// usableKey follows RFC 7518 section 6.
func usableKey(raw json.RawMessage) bool {
	var key struct {
		Type      string `json:"kty"`
		ID        string `json:"kid"`
		Algorithm string `json:"alg"`
		Curve     string `json:"crv"`
		N         string `json:"n"`
		E         string `json:"e"`
		X         string `json:"x"`
		Y         string `json:"y"`
		K         string `json:"k"`
	}
	if json.Unmarshal(raw, &key) != nil {
		return false
	}
	algorithm := func(prefixes ...string) bool {
		if key.Algorithm == "" {
			return true
		}
		for _, p := range prefixes {
			if strings.HasPrefix(key.Algorithm, p) {
				return true
			}
		}
		return false
	}
	switch key.Type {
	case "RSA":
		return algorithm("RS", "PS") && usableRSA(decode(key.N), decode(key.E))
	case "EC":
		return algorithm("ES") && usablePoint(key.Curve, decode(key.X), decode(key.Y))
	case "OKP":
		return algorithm("EdDSA") && key.Curve == "Ed25519" && len(decode(key.X)) == 32
	case "oct":
		return algorithm("HS") && len(decode(key.K)) > 0
	}
	return false
}

// decode returns nil for what is not base64url.
func decode(text string) []byte {
	out, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil
	}
	return out
}

// usableRSA has limits at which key sizes are neither a joke nor a burden.
func usableRSA(modulus, exponent []byte) bool {
	n, e := new(big.Int).SetBytes(modulus), new(big.Int).SetBytes(exponent)
	return n.BitLen() >= 1024 && n.BitLen() <= 8192 && n.Bit(0) == 1 && e.BitLen() >= 2 && e.BitLen() <= 33 && e.Bit(0) == 1
}

func usablePoint(name string, x, y []byte) bool {
	var curve ecdh.Curve
	var size int
	switch name {
	case "P-256":
		curve, size = ecdh.P256(), 32
	case "P-384":
		curve, size = ecdh.P384(), 48
	case "P-521":
		curve, size = ecdh.P521(), 66
	default:
		return false
	}
	if len(x) == 0 || len(y) == 0 || len(x) > size || len(y) > size {
		return false
	}
	pad := func(b []byte) []byte { return append(make([]byte, size-len(b)), b...) }
	_, err := curve.NewPublicKey(bytes.Join([][]byte{{4}, pad(x), pad(y)}, nil))
	return err == nil
}
