package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	counters "github.com/isthmus-mesh/isthmus/waypoint/internal/telemetry"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/xds"
)

// stats answers /stats as text, JSON or for Prometheus.
func (s *Server) stats(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if query.Get("format") == "prometheus" {
		s.prometheus(w, r)
		return
	}
	samples := s.Samples()
	if query.Has("usedonly") {
		samples = slices.DeleteFunc(samples, func(one counters.Sample) bool { return one.Value == 0 })
	}
	keep := func(string) bool { return true }
	if pattern := query.Get("filter"); pattern != "" {
		matcher, err := regexp.Compile(pattern)
		if err != nil {
			http.Error(w, "filter: "+err.Error(), http.StatusBadRequest)
			return
		}
		keep = matcher.MatchString
	}
	if query.Get("format") == "json" {
		s.statsJSON(w, samples, keep)
		return
	}
	if err := counters.WriteText(w, samples, keep); err != nil {
		s.Log.Debug("answer /stats", "error", err)
	}
}

func (s *Server) statsJSON(w http.ResponseWriter, samples []counters.Sample, keep func(string) bool) {
	type stat struct {
		Name  string  `json:"name"`
		Value float64 `json:"value"`
	}
	out := struct {
		Stats []stat `json:"stats"`
	}{Stats: []stat{}}
	for _, one := range samples {
		if name := one.String(); keep(name) {
			out.Stats = append(out.Stats, stat{name, one.Value})
		}
	}
	slices.SortFunc(out.Stats, func(a, b stat) int { return strings.Compare(a.Name, b.Name) })
	text, err := json.Marshal(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(append(text, '\n')); err != nil {
		s.Log.Debug("answer /stats", "error", err)
	}
}

// Discovery are the counters of what the control plane sent, under Envoy's names.
func Discovery(snapshot xds.Snapshot) []counters.Sample {
	var out []counters.Sample
	for _, one := range []struct{ typeURL, scope, prefix, active, warming string }{
		{xds.ClusterType, "cluster_manager", "cds.", "active_clusters", "warming_clusters"},
		{xds.ListenerType, "listener_manager", "lds.", "total_listeners_active", "total_listeners_warming"},
		{xds.RouteType, "http", "rds.", "rds.active", "rds.warming"},
		{xds.EndpointType, "cluster", "eds.", "eds.active", "eds.warming"},
	} {
		c := snapshot.Counts[one.typeURL]
		out = append(out,
			counters.Sample{Scope: one.scope, Name: one.prefix + "update_success", Value: float64(c.Success), Counter: true},
			counters.Sample{Scope: one.scope, Name: one.prefix + "update_rejected", Value: float64(c.Rejected), Counter: true},
			counters.Sample{Scope: one.scope, Name: one.active, Value: float64(c.Active)},
			counters.Sample{Scope: one.scope, Name: one.warming, Value: float64(c.Warming)},
		)
	}
	return out
}

// scopes of the log, which /logging lists.
func scopes() []string { return []string{"accesslog", "agent", "ca", "proxy", "xds"} }

// logging shows and changes levels in the forms that Envoy takes.
func (s *Server) logging(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if r.Method == http.MethodPost {
		var changes []string
		for key, values := range query {
			switch {
			case key == "reset":
				s.Levels.Reset()
			case key == "level" && !strings.ContainsAny(values[0], "=:"):
				s.Levels.Reset() // a level for everything leaves no exceptions
				changes = append(changes, values[0])
			case key == "level" || key == "paths":
				changes = append(changes, values[0])
			default:
				changes = append(changes, key+"="+values[0])
			}
		}
		if len(changes) > 0 {
			if err := s.Levels.Set(strings.Join(changes, ",")); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
	}
	set := strings.Split(s.Levels.String(), ",")
	levels := map[string]string{}
	for _, scope := range scopes() {
		levels[scope] = set[0]
	}
	for _, exception := range set[1:] {
		if scope, level, ok := strings.Cut(exception, "="); ok {
			levels[scope] = level
		}
	}
	fmt.Fprintln(w, "active loggers:")
	fmt.Fprintf(w, "  default: %s\n", set[0])
	for _, scope := range sortedKeys(levels) {
		fmt.Fprintf(w, "  %s: %s\n", scope, levels[scope])
	}
}

func sortedKeys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for key := range m {
		out = append(out, key)
	}
	slices.Sort(out)
	return out
}
