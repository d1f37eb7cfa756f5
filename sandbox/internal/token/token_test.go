package token_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/token"
)

func TestIssue(t *testing.T) {
	signer, err := token.NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	text, err := signer.Issue(token.Subject{Namespace: "shop", ServiceAccount: "web", Pod: "web-1", PodUID: "u1", Node: "node-1"},
		"istio-ca", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := signer.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(raw, &keys); err != nil {
		t.Fatal(err)
	}
	parsed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var claims jwt.Claims
	var private map[string]any
	if err := parsed.Claims(keys.Keys[0], &claims, &private); err != nil {
		t.Fatal(err)
	}
	if err := claims.Validate(jwt.Expected{Issuer: token.Issuer, AnyAudience: jwt.Audience{"istio-ca"}, Time: time.Now()}); err != nil {
		t.Error(err)
	}
	if claims.Subject != "system:serviceaccount:shop:web" {
		t.Errorf("subject %q", claims.Subject)
	}
	pod, _ := private["kubernetes.io"].(map[string]any)["pod"].(map[string]any)
	if pod["uid"] != "u1" {
		t.Errorf("the token is not bound to its pod: %v", private)
	}
}
