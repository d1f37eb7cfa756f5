package ca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/pilot/internal/ca"
)

// apiServer reviews tokens and tells its keys, until it goes away.
type apiServer struct {
	key    *ecdsa.PrivateKey
	client *kubernetes.Clientset
	away   atomic.Bool  // connections are cut
	code   atomic.Int32 // of answers to reviews, if not 0
	keys   atomic.Int32 // how often they were fetched
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &apiServer{key: key}
	s := httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(s.Close)
	if a.client, err = kubernetes.NewForConfig(&rest.Config{Host: s.URL}); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *apiServer) serve(w http.ResponseWriter, r *http.Request) {
	if a.away.Load() {
		panic(http.ErrAbortHandler)
	}
	produces := "application/json"
	if r.URL.Path == "/openid/v1/jwks" {
		produces = "application/jwk-set+json" // and, as the API server, no other
	}
	if !strings.Contains(r.Header.Get("Accept"), produces) {
		w.WriteHeader(http.StatusNotAcceptable)
		return
	}
	w.Header().Set("Content-Type", produces)
	var answer any
	switch {
	case r.URL.Path == "/.well-known/openid-configuration":
		answer = map[string]string{"issuer": issuer}
	case r.URL.Path == "/openid/v1/jwks":
		answer = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: a.key.Public(), KeyID: "k", Algorithm: "ES256", Use: "sig"}}}
		a.keys.Add(1)
	case a.code.Load() != 0:
		w.WriteHeader(int(a.code.Load()))
		answer = metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: a.code.Load()}
	default: // a review, which refuses everything
		answer = authenticationv1.TokenReview{
			TypeMeta: metav1.TypeMeta{Kind: "TokenReview", APIVersion: "authentication.k8s.io/v1"},
			Status:   authenticationv1.TokenReviewStatus{Error: "refused on principle"},
		}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// reviews asks the API server, whose keys have been fetched.
func (a *apiServer) reviews(t *testing.T) *ca.TokenReview {
	t.Helper()
	offline := ca.NewOffline(a.client.Discovery().RESTClient(), []string{"istio-ca"}, cluster{}, slog.New(slog.DiscardHandler))
	ca.FetchKeys(t, offline)
	return ca.NewTokenReview(a.client.AuthenticationV1().TokenReviews(), "Kubernetes", []string{"istio-ca"}, offline)
}

// token of ztunnel-1, signed by the API server, with other claims.
func (a *apiServer) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	all := map[string]any{
		"iss": issuer, "aud": []string{"istio-ca"}, "sub": "system:serviceaccount:istio-system:ztunnel",
		"exp": time.Now().Add(time.Hour).Unix(), "nbf": time.Now().Unix(), "kubernetes.io": bound("ztunnel-1", "uid-1", "node-1"),
	}
	maps.Copy(all, claims)
	return sign(t, jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: a.key, KeyID: "k"}}, all)
}

func bound(pod, uid, node string) map[string]any {
	return map[string]any{
		"namespace": "istio-system", "pod": map[string]any{"name": pod, "uid": uid}, "serviceaccount": map[string]any{"name": "ztunnel"},
		"node": map[string]any{"name": node, "uid": "n"},
	}
}

func TestTokensWhileTheAPIServerIsAway(t *testing.T) {
	api := newAPIServer(t)
	reviews := api.reviews(t)
	api.away.Store(true)
	caller, err := reviews.Authenticate(calling(api.token(t, nil), "Kubernetes"))
	want := ca.Caller{Namespace: "istio-system", ServiceAccount: "ztunnel", PodName: "ztunnel-1", PodUID: "uid-1", Node: "node-1", ClusterID: "Kubernetes"}
	if err != nil || caller != want {
		t.Errorf("caller %+v, %v", caller, err)
	}
	stranger := newAPIServer(t)
	for name, tt := range map[string]struct{ token, want string }{
		"another issuer":          {api.token(t, map[string]any{"iss": "https://elsewhere"}), "issuer"},
		"another audience":        {api.token(t, map[string]any{"aud": []string{"vault"}}), "audience"},
		"no audience":             {api.token(t, map[string]any{"aud": []string{}}), "audience"},
		"expired":                 {api.token(t, map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}), "expired"},
		"not valid yet":           {api.token(t, map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}), "not valid yet"},
		"without end":             {api.token(t, map[string]any{"exp": nil}), "never expires"},
		"the pod is gone":         {api.token(t, map[string]any{"kubernetes.io": bound("ztunnel-9", "uid-9", "node-1")}), "not known"},
		"a pod of the same name":  {api.token(t, map[string]any{"kubernetes.io": bound("ztunnel-1", "uid-0", "node-1")}), "another one now"},
		"another node":            {api.token(t, map[string]any{"kubernetes.io": bound("ztunnel-1", "uid-1", "node-2")}), "another node"},
		"another account":         {api.token(t, map[string]any{"sub": "system:serviceaccount:istio-system:istiod", "kubernetes.io": map[string]any{"pod": map[string]any{"name": "ztunnel-1", "uid": "uid-1"}}}), "another service account"},
		"not bound to a pod":      {api.token(t, map[string]any{"kubernetes.io": nil}), "not bound"},
		"no service account":      {api.token(t, map[string]any{"sub": "admin"}), "no service account"},
		"signed by somebody else": {stranger.token(t, nil), "none of the keys"},
		"no token at all":         {"secret", "not a signed JWT"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := reviews.Authenticate(calling(tt.token, ""))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "ask the API server") || strings.Contains(err.Error(), tt.token) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// What the API server says counts, whatever its keys would allow.
func TestTheAPIServersWordCounts(t *testing.T) {
	api := newAPIServer(t)
	reviews := api.reviews(t)
	token := api.token(t, nil)
	for _, code := range []int32{0, http.StatusForbidden, http.StatusUnauthorized, http.StatusInternalServerError, http.StatusUnprocessableEntity} {
		api.code.Store(code)
		if _, err := reviews.Authenticate(calling(token, "")); err == nil {
			t.Errorf("accepted although the API server answered %d", code)
		}
	}
	api.code.Store(http.StatusServiceUnavailable) // that of a balancer that has no API server behind it
	if _, err := reviews.Authenticate(calling(token, "")); err != nil {
		t.Error(err)
	}
}

func TestKeysThatWereNeverFetched(t *testing.T) {
	api := newAPIServer(t)
	offline := ca.NewOffline(api.client.Discovery().RESTClient(), []string{"istio-ca"}, cluster{}, slog.New(slog.DiscardHandler))
	for name, reviews := range map[string]*ca.TokenReview{
		"no keys":    ca.NewTokenReview(api.client.AuthenticationV1().TokenReviews(), "Kubernetes", []string{"istio-ca"}, offline),
		"no offline": ca.NewTokenReview(api.client.AuthenticationV1().TokenReviews(), "Kubernetes", []string{"istio-ca"}, nil),
	} {
		api.away.Store(true)
		if _, err := reviews.Authenticate(calling(api.token(t, nil), "")); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Keys are fetched again when the API server is back, so that one that it gave up does not stay.
func TestKeysAreRefreshed(t *testing.T) {
	api := newAPIServer(t)
	reviews := api.reviews(t)
	old := api.token(t, nil)
	next, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	api.key = next
	ca.FetchKeys(t, ca.OfflineOf(reviews))
	api.away.Store(true)
	if err := ca.FetchKeysError(t.Context(), ca.OfflineOf(reviews)); err == nil {
		t.Error("keys of an API server that is away")
	}
	if _, err := reviews.Authenticate(calling(api.token(t, nil), "")); err != nil {
		t.Error(err)
	}
	if _, err := reviews.Authenticate(calling(old, "")); err == nil {
		t.Error("a token of the key before is accepted")
	}
}
