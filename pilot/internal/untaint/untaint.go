// Package untaint opens nodes for pods once the mesh's CNI agent is ready on them.
package untaint

import (
	"context"
	"errors"
	"log/slog"

	"k8s.io/client-go/kubernetes"
)

// Config of a controller.
type Config struct {
	Client kubernetes.Interface
	// Namespace of the CNI agent.
	Namespace string
	Log       *slog.Logger
}

// Controller takes the taint from nodes.
type Controller struct {
	cfg Config
}

// New returns a controller that has not done anything yet.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Log == nil {
		return nil, errors.New("untaint nodes: no client or logger")
	}
	return &Controller{cfg: cfg}, nil
}

// Run works until ctx ends: while this instance is the leader.
func (c *Controller) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
