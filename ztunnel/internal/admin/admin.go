// Package admin is the proxy's door for people and tools: the configuration dump, logging, profiles, metrics, readiness.
package admin

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/inpod"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// Server answers on the admin port. All fields are set before the first request.
type Server struct {
	State        func() *l4.State
	Certificates func() []certs.State
	Pods         func() []inpod.Info
	Build        telemetry.Build
	// Config is shown as it is; it holds no secrets.
	Config any
	Levels *telemetry.Levels
	// Quit ends the process in order.
	Quit func()
	Log  *slog.Logger
}

// Handler is for a loopback address only: whoever reaches it may end the proxy.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", index)
	mux.HandleFunc("GET /config_dump", s.dump)
	mux.HandleFunc("POST /logging", s.logging)
	mux.HandleFunc("POST /quitquitquit", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "shutdown now")
		s.Quit()
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func index(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprint(w, `GET  /config_dump           workloads, services, policies, certificates, connections
POST /logging               the log levels; ?level=info,access=debug sets, ?reset returns to the start's
POST /quitquitquit          end the proxy in order
GET  /debug/pprof/profile   CPU profile
GET  /debug/pprof/heap      memory profile
`)
}

func (s *Server) dump(w http.ResponseWriter, _ *http.Request) {
	dump := newDump(s.State(), s.Certificates(), s.Pods(), s.Build, s.Config)
	out, err := json.MarshalIndent(dump, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(append(out, '\n')); err != nil {
		s.Log.Debug("answer /config_dump", "error", err)
	}
}

func (s *Server) logging(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if query.Has("reset") {
		s.Levels.Reset()
	}
	if level := query.Get("level"); level != "" {
		if err := s.Levels.Set(strings.ReplaceAll(level, "ztunnel::", "")); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	fmt.Fprintf(w, "current log level is %s\n", s.Levels)
}

// MetricsHandler serves the metrics under the names that scrapers of the field use.
func MetricsHandler(gatherer prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	h := promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{})
	mux.Handle("GET /metrics", h)
	mux.Handle("GET /stats/prometheus", h)
	return mux
}

// ReadinessHandler serves /healthz/ready.
func ReadinessHandler(r *telemetry.Readiness) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz/ready", r)
	return mux
}
