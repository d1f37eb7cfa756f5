// Package admin is the proxy's door for people and tools, in the shape that Envoy's has: configuration dump, clusters, listeners,
// certificates, statistics, logging, draining; and the ports for probes and scrapers.
package admin

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/listener"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	counters "github.com/isthmus-mesh/isthmus/waypoint/internal/telemetry"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/xds"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// Engine is what carries requests, as the admin port sees it.
type Engine interface {
	Config() *l7.Config
	Listeners() []listener.State
	Clusters() []upstream.ClusterState
	Stats() proxy.Stats
	DrainListeners()
}

// Server answers on the admin port. All fields are set before the first request.
type Server struct {
	Engine       Engine
	Snapshot     func() xds.Snapshot
	Certificates func() []certs.State
	// Bootstrap describes the proxy; it is immutable.
	Bootstrap *bootstrapv3.Bootstrap
	Readiness *Readiness
	// Samples are the engine's counters and gauges, Gatherer all metrics of the engine.
	Samples  func() []counters.Sample
	Gatherer prometheus.Gatherer
	Build    telemetry.Build
	Levels   *telemetry.Levels
	Started  time.Time
	// Quit ends the process in order.
	Quit func()
	Log  *slog.Logger
}

// route is one path of the admin port.
type route struct {
	pattern, help string
	handle        http.HandlerFunc
}

func (s *Server) routes() []route {
	return []route{
		{"GET /certs", "certificates in force", s.certificates},
		{"GET /clusters", "state of the clusters; ?format=json", s.clusters},
		{"GET /config_dump", "configuration; ?include_eds, ?resource=dynamic_listeners, ?name_regex=", s.configDump},
		{"POST /drain_listeners", "tell clients to go elsewhere", s.drain},
		{"POST /healthcheck/fail", "make the readiness probe fail", s.healthcheck(true)},
		{"POST /healthcheck/ok", "undo /healthcheck/fail", s.healthcheck(false)},
		{"GET /listeners", "open listeners; ?format=json", s.listeners},
		{"GET /logging", "the log levels", s.logging},
		{"POST /logging", "log levels; ?level=debug for all, ?xds=debug or ?paths=xds:debug,ca:info for scopes, ?reset", s.logging},
		{"GET /memory", "memory in use", s.memory},
		{"POST /quitquitquit", "end the proxy in order", s.quit},
		{"GET /ready", "LIVE when the proxy serves", s.ready},
		{"GET /server_info", "version, state, node", s.serverInfo},
		{"GET /stats", "counters and gauges; ?filter=REGEX, ?format=json, ?format=prometheus", s.stats},
		{"GET /stats/prometheus", "metrics for Prometheus", s.prometheus},
	}
}

// Handler is for a loopback address only: whoever reaches it may end the proxy.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.HandleFunc(r.pattern, r.handle)
	}
	mux.HandleFunc("GET /help", s.help)
	mux.HandleFunc("GET /{$}", s.help)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func (s *Server) help(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "admin commands are:")
	for _, r := range s.routes() {
		fmt.Fprintf(w, "  %-26s %s\n", r.pattern, r.help)
	}
	fmt.Fprintf(w, "  %-26s %s\n", "GET /debug/pprof/", "profiles")
}

func (s *Server) drain(w http.ResponseWriter, _ *http.Request) {
	s.Engine.DrainListeners()
	fmt.Fprintln(w, "OK")
}

func (s *Server) quit(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "OK")
	s.Quit()
}

func (s *Server) healthcheck(fail bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		s.Readiness.Fail(fail)
		fmt.Fprintln(w, "OK")
	}
}

// json writes a message as Envoy does: fields by their proto names, indented.
func (s *Server) json(w http.ResponseWriter, m proto.Message) { s.write(w, m, marshaler()) }

// whole writes a message with the fields that have their default values too.
func (s *Server) whole(w http.ResponseWriter, m proto.Message) {
	all := marshaler()
	all.EmitDefaultValues = true
	s.write(w, m, all)
}

func (s *Server) write(w http.ResponseWriter, m proto.Message, how protojson.MarshalOptions) {
	text, err := how.Marshal(m)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(append(text, '\n')); err != nil {
		s.Log.Debug("answer an admin request", "error", err)
	}
}

func marshaler() protojson.MarshalOptions {
	return protojson.MarshalOptions{UseProtoNames: true, Multiline: true, Indent: " "}
}

func (s *Server) prometheus(w http.ResponseWriter, r *http.Request) {
	promhttp.HandlerFor(s.Gatherer, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// MetricsHandler serves metrics under the paths that scrapers of the field use, and with readiness also the probe.
func MetricsHandler(gatherer prometheus.Gatherer, readiness http.Handler) http.Handler {
	mux := http.NewServeMux()
	h := promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{})
	mux.Handle("GET /metrics", h)
	mux.Handle("GET /stats/prometheus", h)
	if readiness != nil {
		mux.Handle("GET /healthz/ready", readiness)
	}
	return mux
}

// ReadinessHandler serves /healthz/ready.
func ReadinessHandler(readiness http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz/ready", readiness)
	return mux
}
