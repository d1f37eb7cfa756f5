//go:build e2e

package suites

import (
	"context"
	"time"
)

const second = time.Second

// expired is a context in which nothing is waited for.
func expired() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), second)
	context.AfterFunc(ctx, cancel)
	return ctx
}
