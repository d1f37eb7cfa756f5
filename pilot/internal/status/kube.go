package status

import (
	"context"
	"errors"
	"log/slog"

	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
)

// KubeConfig of a writer to the Kubernetes API.
type KubeConfig struct {
	REST *rest.Config
	Log  *slog.Logger
}

// Kube writes statuses to the API server. It takes them at all times and writes them while Run runs: while this instance is the
// leader.
type Kube struct {
	cfg KubeConfig
}

// NewKube returns a writer that knows nothing.
func NewKube(cfg KubeConfig) (*Kube, error) {
	if cfg.REST == nil || cfg.Log == nil {
		return nil, errors.New("write statuses: no client configuration or logger")
	}
	return &Kube{cfg: cfg}, nil
}

// Changed takes new statuses; one without content is of an object that has none any more. It does not block.
func (k *Kube) Changed(statuses []registry.Status) {}

// Run writes until ctx ends. It may be called again afterwards.
func (k *Kube) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
