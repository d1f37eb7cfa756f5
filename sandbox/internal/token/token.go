// Package token issues the ServiceAccount tokens of the sandbox's pods, as the API server does: pod-bound, for an audience, short-lived.
package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Issuer is the tokens' issuer, the one of a default Kubernetes cluster.
const Issuer = "https://kubernetes.default.svc.cluster.local"

// Subject is whom a token speaks for.
type Subject struct {
	Namespace, ServiceAccount, ServiceAccountUID string
	Pod, PodUID, Node                            string
}

type reference struct {
	Name string `json:"name"`
	UID  string `json:"uid,omitempty"`
}

type bound struct {
	Namespace      string    `json:"namespace"`
	Node           reference `json:"node"`
	Pod            reference `json:"pod"`
	ServiceAccount reference `json:"serviceaccount"`
}

// Signer signs tokens with a key of its own.
type Signer struct {
	signer jose.Signer
	public jose.JSONWebKey
}

// NewSigner makes a signer with a new key.
func NewSigner() (*Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the token key: %w", err)
	}
	private := jose.JSONWebKey{Key: key, KeyID: "sandbox", Algorithm: string(jose.ES256), Use: "sig"}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, fmt.Errorf("make the token signer: %w", err)
	}
	return &Signer{signer: signer, public: private.Public()}, nil
}

// JWKS returns the public key as a JSON Web Key Set.
func (s *Signer) JWKS() ([]byte, error) {
	return json.MarshalIndent(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{s.public}}, "", "  ")
}

// Issue returns a token for audience that is valid from now for ttl.
func (s *Signer) Issue(sub Subject, audience string, now time.Time, ttl time.Duration) (string, error) {
	claims := jwt.Claims{
		Issuer:    Issuer,
		Subject:   "system:serviceaccount:" + sub.Namespace + ":" + sub.ServiceAccount,
		Audience:  jwt.Audience{audience},
		IssuedAt:  jwt.NewNumericDate(now),
		NotBefore: jwt.NewNumericDate(now),
		Expiry:    jwt.NewNumericDate(now.Add(ttl)),
	}
	private := map[string]any{"kubernetes.io": bound{
		Namespace:      sub.Namespace,
		Node:           reference{Name: sub.Node},
		Pod:            reference{sub.Pod, sub.PodUID},
		ServiceAccount: reference{sub.ServiceAccount, sub.ServiceAccountUID},
	}}
	text, err := jwt.Signed(s.signer).Claims(claims).Claims(private).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign the token of %s/%s: %w", sub.Namespace, sub.Pod, err)
	}
	return text, nil
}
