// Package debug tells people and tools what the control plane knows and what its clients have.
package debug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pilot/internal/status"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// Server answers debug requests. All fields are set before the first one.
type Server struct {
	Registry *registry.Registry
	Clients  func() []server.ClientStatus
	// Configurations are what the client of a connection is to have.
	Configurations func(connection uint64) ([]server.Configuration, bool)
	// Allow decides which callers by xDS may see pages.
	Allow func(context.Context, server.Peer) error
	// Errors of the objects that are not in force.
	Errors func() []kube.ObjectError
	// Problems are what is wrong with objects and what of them has no effect, by object.
	Problems func() map[string][]string
	// Statuses are what became of each object.
	Statuses func() []status.Document
	Mesh     func() proto.Message
	Build    telemetry.Build
	// Profile serves profiles, too.
	Profile bool
	// Instance and Revision of this control plane.
	Instance, Revision string
}

// endpoint is one page.
type endpoint struct {
	path, help string
	serve      func(url.Values) (any, error)
}

func (s *Server) endpoints() []endpoint {
	return []endpoint{
		{"syncz", "what each connected proxy was sent and has acknowledged", func(q url.Values) (any, error) { return s.syncz(q.Get("namespace")), nil }},
		{"config_dump", configDumpHelp, func(q url.Values) (any, error) { return s.configDump(q) }},
		{"configz", "objects that are not in force, and why", func(url.Values) (any, error) { return orEmpty(s.Errors()), nil }},
		{"statusz", "status of each object, as it would be written to it", func(url.Values) (any, error) { return orEmpty(s.Statuses()), nil }},
		{"problemz", "what is wrong with objects and with the mesh configuration, and what of routes for connected proxies has no effect, by object", func(url.Values) (any, error) { return s.Problems(), nil }},
		{"registryz", "services", func(url.Values) (any, error) { return s.services() }},
		{"endpointz", "workloads by service", func(url.Values) (any, error) { return s.byService(), nil }},
		{"ambientz", "workloads, services and policies as ambient proxies get them", func(url.Values) (any, error) { return s.ambient() }},
		{"authorizationz", "authorization policies and whether ztunnel accepts them", func(url.Values) (any, error) { return s.policies(), nil }},
		{"connections", "connected proxies", func(url.Values) (any, error) { return s.connections(), nil }},
		{"mesh", "mesh configuration in force", func(url.Values) (any, error) { return messageJSON(s.Mesh()) }},
	}
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// Handler serves /debug/…; whoever mounts it decides who may ask.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, e := range s.endpoints() {
		mux.HandleFunc("GET /debug/"+e.path, func(w http.ResponseWriter, r *http.Request) {
			value, err := e.serve(r.URL.Query())
			if err != nil {
				code := http.StatusInternalServerError
				var p *problem
				if errors.As(err, &p) {
					code = p.code
				}
				http.Error(w, err.Error(), code)
				return
			}
			writeJSON(w, value)
		})
	}
	list := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s.index()) }
	mux.HandleFunc("GET /debug/list", list)
	mux.HandleFunc("GET /debug/{$}", list)
	mux.HandleFunc("GET /debug", list)
	if s.Profile {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// index says which pages there are.
func (s *Server) index() string {
	var out strings.Builder
	for _, e := range s.endpoints() {
		fmt.Fprintf(&out, "/debug/%s: %s\n", e.path, e.help)
	}
	if s.Profile {
		out.WriteString("/debug/pprof/: profiles\n")
	}
	return out.String()
}

func writeJSON(w http.ResponseWriter, value any) {
	out, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(out, '\n')) // the client is gone
}

func messageJSON(m proto.Message) (json.RawMessage, error) {
	out, err := protojson.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("marshal %T: %w", m, err)
	}
	return out, nil
}

func (s *Server) services() (any, error) {
	out := []json.RawMessage{}
	for _, svc := range s.Registry.Services() {
		raw, err := messageJSON(svc.Proto)
		if err != nil {
			return nil, err
		}
		out = append(out, raw)
	}
	return out, nil
}

func (s *Server) ambient() (any, error) {
	out := struct {
		Workloads []json.RawMessage `json:"workloads"`
		Services  any               `json:"services"`
		Policies  []json.RawMessage `json:"policies"`
	}{Workloads: []json.RawMessage{}, Policies: []json.RawMessage{}}
	var err error
	if out.Services, err = s.services(); err != nil {
		return nil, err
	}
	for _, w := range s.Registry.Workloads() {
		raw, err := messageJSON(w.Proto)
		if err != nil {
			return nil, err
		}
		out.Workloads = append(out.Workloads, raw)
	}
	for _, p := range s.Registry.Policies() {
		if p.Proto == nil {
			continue
		}
		raw, err := messageJSON(p.Proto)
		if err != nil {
			return nil, err
		}
		out.Policies = append(out.Policies, raw)
	}
	return out, nil
}

// byService maps namespace/hostname to the uids of its workloads.
func (s *Server) byService() map[string][]string {
	out := map[string][]string{}
	for _, svc := range s.Registry.Services() {
		out[svc.Key()] = []string{}
	}
	for _, w := range s.Registry.Workloads() {
		for key := range w.Proto.Services {
			out[key] = append(out[key], w.Proto.Uid)
		}
	}
	for _, uids := range out {
		slices.Sort(uids)
	}
	return out
}

type policyJSON struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Sent      bool   `json:"sent"`
	Accepted  bool   `json:"accepted"`
	Reason    string `json:"reason"`
	Message   string `json:"message"`
}

func (s *Server) policies() []policyJSON {
	out := []policyJSON{}
	for _, p := range s.Registry.Policies() {
		out = append(out, policyJSON{p.Namespace, p.Name, p.Proto != nil, p.Status.Accepted, p.Status.Reason, p.Status.Message})
	}
	return out
}

type connectionJSON struct {
	ID        uint64    `json:"connectionId"`
	Node      string    `json:"node"`
	Connected time.Time `json:"connectedAt"`
	Identity  string    `json:"identity,omitempty"`
}

func (s *Server) connections() []connectionJSON {
	out := []connectionJSON{}
	for _, c := range s.proxies() {
		identity := ""
		if c.Peer.Namespace != "" {
			identity = c.Peer.Namespace + "/" + c.Peer.ServiceAccount
		}
		out = append(out, connectionJSON{c.ConnectionID, c.Node.GetId(), c.Connected, identity})
	}
	return out
}
