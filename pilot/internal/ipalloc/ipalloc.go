// Package ipalloc gives addresses to the hosts of ServiceEntries that have none, in their status.
package ipalloc

import (
	"context"
	"errors"
	"log/slog"

	"k8s.io/client-go/rest"
)

// Config of an allocator.
type Config struct {
	REST *rest.Config
	Log  *slog.Logger
}

// Controller writes addresses into the status of ServiceEntries.
type Controller struct {
	cfg Config
}

// New returns a controller that has not done anything yet.
func New(cfg Config) (*Controller, error) {
	if cfg.REST == nil || cfg.Log == nil {
		return nil, errors.New("allocate addresses: no client configuration or logger")
	}
	return &Controller{cfg: cfg}, nil
}

// Run works until ctx ends: while this instance is the leader.
func (c *Controller) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
