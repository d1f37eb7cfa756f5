package ca

import (
	"context"
	"testing"
	"time"
)

// Reread makes the next verification look at the key file.
func Reread(j *JWT) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.looked = time.Time{}
}

// FetchKeys fetches the API server's keys once.
func FetchKeys(t *testing.T, o *Offline) {
	t.Helper()
	if err := FetchKeysError(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// FetchKeysError is FetchKeys that may fail.
func FetchKeysError(ctx context.Context, o *Offline) error { return o.fetch(ctx) }

// OfflineOf is what reviews ask while the API server is away.
func OfflineOf(t *TokenReview) *Offline { return t.offline }
