// Package webhook answers the API server whether an object of the mesh may be stored, and has the API server trust the answers.
package webhook

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
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
	cfg     Config
	metrics metrics
	client  kubernetes.Interface // nil without Config.REST
	dynamic dynamic.Interface
	changed chan struct{} // holds one token: the roots are other ones
}

// metrics have the names that dashboards know.
type metrics struct {
	passed, failed, malformed *prometheus.CounterVec
	updates, updateErrors     *prometheus.CounterVec
}

// New returns a webhook.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		return nil, errors.New("validation webhook: no logger")
	}
	if cfg.Revision == "" {
		cfg.Revision = defaultRevision
	}
	s := &Server{cfg: cfg, changed: make(chan struct{}, 1)}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	s.metrics = metrics{
		passed:       counter("galley_validation_passed", "Objects that may be stored.", "group", "version", "resource"),
		failed:       counter("galley_validation_failed", "Objects that may not be stored.", "group", "version", "resource", "reason"),
		malformed:    counter("galley_validation_http_error", "Requests to the webhook that could not be answered.", "status"),
		updates:      counter("galley_validation_config_updates", "Changes of webhook configurations."),
		updateErrors: counter("galley_validation_config_update_error", "Changes of webhook configurations that failed.", "reason"),
	}
	if cfg.Metrics != nil {
		for _, c := range []prometheus.Collector{s.metrics.passed, s.metrics.failed, s.metrics.malformed, s.metrics.updates, s.metrics.updateErrors} {
			if err := cfg.Metrics.Register(c); err != nil {
				return nil, fmt.Errorf("validation webhook: register metrics: %w", err)
			}
		}
	}
	if cfg.REST == nil {
		return s, nil
	}
	var err error
	if s.client, err = kubernetes.NewForConfig(cfg.REST); err != nil {
		return nil, fmt.Errorf("validation webhook: %w", err)
	}
	plain := rest.CopyConfig(cfg.REST) // the dynamic client speaks JSON only
	plain.ContentType, plain.AcceptContentTypes = "", ""
	if s.dynamic, err = dynamic.NewForConfig(plain); err != nil {
		return nil, fmt.Errorf("validation webhook: %w", err)
	}
	return s, nil
}

// Handler answers POST /validate.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// RootsChanged has the configurations looked at again, since CABundle returns something else.
func (s *Server) RootsChanged() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}
