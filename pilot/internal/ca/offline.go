package ca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"k8s.io/client-go/rest"
)

const (
	// keysRefresh is how often the API server's keys are fetched: a key that it gave up is not trusted for longer when it goes away.
	keysRefresh = 5 * time.Minute
	// keysRetry is how soon it is tried again after a failure.
	keysRetry = 10 * time.Second
	// keysTimeout is how long one attempt may take.
	keysTimeout = 10 * time.Second

	discoveryPath = "/.well-known/openid-configuration"
	keysPath      = "/openid/v1/jwks"
)

// Offline verifies the tokens of pods while the API server is away, by what it said while it was there: its issuer, its public keys,
// and which pods there are. It is stricter than a review: a token must be bound to a pod that is known, with all that the token says
// of it. What it cannot see is what happened since the outage began, and that somebody revoked an account without deleting its pods.
type Offline struct {
	client    rest.Interface
	pods      Pods
	audiences []string
	log       *slog.Logger
	now       func() time.Time

	mu     sync.Mutex
	issuer string             // guarded by mu; empty before the first fetch
	keys   jose.JSONWebKeySet // guarded by mu
}

// NewOffline fetches keys through the client of an API server once Run is called.
func NewOffline(client rest.Interface, audiences []string, pods Pods, log *slog.Logger) *Offline {
	return &Offline{client: client, pods: pods, audiences: audiences, log: log, now: time.Now}
}

// Run keeps the keys fresh until ctx ends.
func (o *Offline) Run(ctx context.Context) {
	failed := false
	for {
		err := o.fetch(ctx)
		wait := keysRefresh
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait = keysRetry
			if !failed {
				o.log.Warn("the keys of the API server's tokens are not refreshed; proxies that connect while it is away are judged by the last ones", "error", err)
			}
		case failed:
			o.log.Info("the keys of the API server's tokens are fresh again")
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// fetch replaces issuer and keys when the API server tells both.
func (o *Offline) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	var discovery struct {
		Issuer string `json:"issuer"`
	}
	var keys jose.JSONWebKeySet
	for path, into := range map[string]any{discoveryPath: &discovery, keysPath: &keys} {
		// Key sets have a media type of their own, and the API server knows no other for them.
		text, err := o.client.Get().AbsPath(path).SetHeader("Accept", "application/json, application/jwk-set+json").DoRaw(ctx)
		if err != nil {
			return fmt.Errorf("get %s: %w", path, err)
		}
		if err := json.Unmarshal(text, into); err != nil {
			return fmt.Errorf("parse %s: %w", path, err)
		}
	}
	if discovery.Issuer == "" || len(keys.Keys) == 0 {
		return errors.New("the API server names no issuer or no keys")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.issuer, o.keys = discovery.Issuer, keys
	return nil
}

// verify accepts the token of a pod that is known. Its length has been checked.
func (o *Offline) verify(token string) (Caller, error) {
	issuer, keys := o.known()
	if issuer == "" {
		return Caller{}, errors.New("its keys have never been fetched")
	}
	keysFor := func(id string) ([]jose.JSONWebKey, error) {
		if id == "" {
			return keys.Keys, nil
		}
		if found := keys.Key(id); len(found) > 0 {
			return found, nil
		}
		return nil, fmt.Errorf("key %q is not among the API server's", id)
	}
	caller, err := verifySigned(token, keysFor, jwt.Expected{Issuer: issuer, AnyAudience: o.audiences, Time: o.now()})
	if err != nil {
		return Caller{}, err
	}
	if caller.PodName == "" || caller.PodUID == "" {
		return Caller{}, errors.New("the token is not bound to a pod")
	}
	pod, ok := o.pods.Pod(caller.Namespace, caller.PodName)
	switch {
	case !ok:
		return Caller{}, fmt.Errorf("the pod %s/%s is not known", caller.Namespace, caller.PodName)
	case pod.UID != caller.PodUID:
		return Caller{}, fmt.Errorf("the pod %s/%s is another one now", caller.Namespace, caller.PodName)
	case pod.ServiceAccount != caller.ServiceAccount:
		return Caller{}, fmt.Errorf("the pod %s/%s runs as another service account", caller.Namespace, caller.PodName)
	case caller.Node != "" && pod.Node != caller.Node:
		return Caller{}, fmt.Errorf("the pod %s/%s is on another node", caller.Namespace, caller.PodName)
	}
	return caller, nil
}

func (o *Offline) known() (issuer string, keys jose.JSONWebKeySet) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.issuer, jose.JSONWebKeySet{Keys: slices.Clone(o.keys.Keys)}
}
