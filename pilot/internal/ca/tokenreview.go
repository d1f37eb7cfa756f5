package ca

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
)

const (
	// reviewTrust is how long an accepted token is not asked about again: a node proxy asks for the certificates of all its pods with
	// one token, and one that is revoked must not go on for long.
	reviewTrust = 10 * time.Second
	// reviewMemory is how many accepted tokens are remembered at most.
	reviewMemory = 4096
	// reviewTimeout is how long the API server may take, and awayTimeout while it has not answered lately: callers wait for it.
	reviewTimeout = 10 * time.Second
	awayTimeout   = time.Second
	awayMemory    = 30 * time.Second

	extraPodName  = "authentication.kubernetes.io/pod-name"
	extraPodUID   = "authentication.kubernetes.io/pod-uid"
	extraNodeName = "authentication.kubernetes.io/node-name"
)

// TokenReview accepts the tokens of ServiceAccounts that the API server accepts. It knows tokens by their hashes only. While the API
// server does not answer, and only then, it asks Offline.
type TokenReview struct {
	client    authenticationclient.TokenReviewInterface
	audiences []string
	clusterID string
	offline   *Offline // may be nil
	now       func() time.Time

	mu       sync.Mutex
	accepted map[tokenHash]accepted // guarded by mu
	asking   map[tokenHash]*review  // guarded by mu: under way
	away     time.Time              // guarded by mu: when the API server last did not answer; zero if it has answered since
}

type tokenHash [sha256.Size]byte

type accepted struct {
	caller Caller
	until  time.Time
}

// review is a question that is under way. Its result may be read when done is closed.
type review struct {
	done   chan struct{}
	caller Caller
	err    error
}

// NewTokenReview accepts tokens for any of the audiences from callers in the cluster. offline may be nil: then nobody is let in while
// the API server is away.
func NewTokenReview(client authenticationclient.TokenReviewInterface, clusterID string, audiences []string, offline *Offline) *TokenReview {
	return &TokenReview{
		client: client, audiences: audiences, clusterID: clusterID, offline: offline, now: time.Now,
		accepted: map[tokenHash]accepted{}, asking: map[tokenHash]*review{},
	}
}

// Authenticate implements Authenticator.
func (t *TokenReview) Authenticate(ctx context.Context) (Caller, error) {
	token, err := bearer(ctx)
	if err != nil {
		return Caller{}, err
	}
	cluster := clusterOf(ctx)
	if cluster != "" && cluster != t.clusterID {
		return Caller{}, fmt.Errorf("token: the cluster %q is not known here", cluster)
	}
	if len(token) > maxToken {
		return Caller{}, fmt.Errorf("token: longer than %d bytes", maxToken)
	}
	caller, err := t.caller(ctx, token)
	if err != nil {
		return Caller{}, fmt.Errorf("token: %w", err)
	}
	caller.ClusterID = cluster
	return caller, nil
}

// caller asks once for all that wait for the same token at the same time.
func (t *TokenReview) caller(ctx context.Context, token string) (Caller, error) {
	hash := tokenHash(sha256.Sum256([]byte(token)))
	t.mu.Lock()
	if known, ok := t.accepted[hash]; ok && t.now().Before(known.until) {
		t.mu.Unlock()
		return known.caller, nil
	}
	r, ok := t.asking[hash]
	if !ok {
		r = &review{done: make(chan struct{})}
		t.asking[hash] = r
		// Others may wait for it when this call is given up.
		go t.ask(context.WithoutCancel(ctx), hash, token, r)
	}
	t.mu.Unlock()
	select {
	case <-r.done:
		return r.caller, r.err
	case <-ctx.Done():
		return Caller{}, ctx.Err()
	}
}

func (t *TokenReview) ask(ctx context.Context, hash tokenHash, token string, r *review) {
	ctx, cancel := context.WithTimeout(ctx, t.patience())
	defer cancel()
	defer close(r.done)
	r.caller, r.err = t.review(ctx, token)
	away := isAway(r.err)
	if away && t.offline != nil {
		caller, err := t.offline.verify(token)
		if err != nil {
			err = fmt.Errorf("%w; and without it: %w", r.err, err)
		}
		r.caller, r.err = caller, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.away = time.Time{}
	if away {
		t.away = t.now()
	}
	delete(t.asking, hash)
	if r.err != nil {
		delete(t.accepted, hash)
		return
	}
	t.rememberLocked(hash, r.caller)
}

// patience is how long to wait for the API server.
func (t *TokenReview) patience() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.offline != nil && !t.away.IsZero() && t.now().Sub(t.away) < awayMemory {
		return awayTimeout
	}
	return reviewTimeout
}

// isAway tells whether a review failed because nobody answered it: no answer at all, or one that says that there will be none for now.
// Any other answer is the API server's word.
func isAway(err error) bool {
	var asked *askError
	if !errors.As(err, &asked) {
		return false
	}
	var status apierrors.APIStatus
	return !errors.As(asked.err, &status) || apierrors.IsServiceUnavailable(asked.err) || apierrors.IsServerTimeout(asked.err) || apierrors.IsTimeout(asked.err)
}

// askError says that the API server gave no review.
type askError struct{ err error }

func (e *askError) Error() string { return "ask the API server: " + e.err.Error() }
func (e *askError) Unwrap() error { return e.err }

func (t *TokenReview) rememberLocked(hash tokenHash, caller Caller) {
	now := t.now()
	if len(t.accepted) >= reviewMemory {
		for k, v := range t.accepted {
			if !now.Before(v.until) {
				delete(t.accepted, k)
			}
		}
		if len(t.accepted) >= reviewMemory {
			clear(t.accepted)
		}
	}
	t.accepted[hash] = accepted{caller, now.Add(reviewTrust)}
}

// review never puts the token into an error: those of the API server do not have it.
func (t *TokenReview) review(ctx context.Context, token string) (Caller, error) {
	answer, err := t.client.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: t.audiences},
	}, metav1.CreateOptions{})
	if err != nil {
		return Caller{}, &askError{err}
	}
	s := answer.Status
	switch {
	case !s.Authenticated && s.Error != "":
		return Caller{}, fmt.Errorf("the API server refuses it: %s", s.Error)
	case !s.Authenticated:
		return Caller{}, errors.New("the API server refuses it")
	case !slices.ContainsFunc(s.Audiences, func(a string) bool { return slices.Contains(t.audiences, a) }):
		return Caller{}, fmt.Errorf("it is not for any of the audiences %q", t.audiences)
	case !slices.Contains(s.User.Groups, "system:serviceaccounts"):
		return Caller{}, fmt.Errorf("%q is no service account", s.User.Username)
	}
	name, ok := strings.CutPrefix(s.User.Username, "system:serviceaccount:")
	namespace, account, both := strings.Cut(name, ":")
	if !ok || !both || namespace == "" || account == "" || strings.Contains(account, ":") {
		return Caller{}, fmt.Errorf("%q is no service account", s.User.Username)
	}
	extra := func(key string) string {
		if values := s.User.Extra[key]; len(values) == 1 {
			return values[0]
		}
		return ""
	}
	return Caller{Namespace: namespace, ServiceAccount: account, PodName: extra(extraPodName), PodUID: extra(extraPodUID), Node: extra(extraNodeName)}, nil
}
