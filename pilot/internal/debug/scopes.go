package debug

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// everything is the scope whose level is of all that have none of their own.
const everything = "default"

// scopes are what the control plane logs about.
func scopes() map[string]string {
	return map[string]string{
		everything: "All that has no level of its own", "ads": "Connections of proxies, and what they are sent", "ca": "Certificates",
		"config": "Objects, and the mesh configuration", "deploy": "Waypoints and gateways that are deployed", "ipallocate": "Addresses of ServiceEntries",
		"credentials": "Secrets that gateways present",
		"jwks":        "Keys that tokens are verified with", "klog": "The library that speaks with the API server", "leader": "Which instance leads",
		"rootcert": "Root certificates in namespaces", "source": "Where objects come from", "status": "Status of objects", "untaint": "Nodes that wait for the CNI agent",
		"webhook": "Injection and validation",
	}
}

// scopeJSON is a scope as ControlZ, Istio's port for this, writes it; its tools read it.
type scopeJSON struct {
	Name            string `json:"name"`
	Description     string `json:"description"`
	OutputLevel     string `json:"output_level"`
	StackTraceLevel string `json:"stack_trace_level"`
	LogCallers      bool   `json:"log_callers"`
}

// Scopes serves the log levels: GET /scopej/ lists them, GET /scopej/NAME shows one, PUT sets it. It is for a loopback address only.
func Scopes(levels *telemetry.Levels) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /scopej/{$}", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, scopeLevels(levels))
	})
	mux.HandleFunc("GET /scopej/{name}", func(w http.ResponseWriter, r *http.Request) {
		for _, s := range scopeLevels(levels) {
			if s.Name == r.PathValue("name") {
				writeJSON(w, s)
				return
			}
		}
		http.Error(w, "there is no such scope", http.StatusNotFound)
	})
	mux.HandleFunc("PUT /scopej/{name}", func(w http.ResponseWriter, r *http.Request) { setScope(w, r, levels) })
	return mux
}

func setScope(w http.ResponseWriter, r *http.Request, levels *telemetry.Levels) {
	const maxBody = 1 << 16
	name := r.PathValue("name")
	if _, ok := scopes()[name]; !ok {
		http.Error(w, "there is no such scope", http.StatusNotFound)
		return
	}
	var wanted scopeJSON
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&wanted); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	spec := wanted.OutputLevel
	if name != everything {
		spec = name + "=" + spec
	}
	if err := levels.Set(spec); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func scopeLevels(levels *telemetry.Levels) []scopeJSON {
	set := strings.Split(levels.String(), ",")
	own := map[string]string{}
	for _, exception := range set[1:] {
		if name, level, ok := strings.Cut(exception, "="); ok {
			own[name] = level
		}
	}
	all := scopes()
	out := []scopeJSON{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		level, ok := own[name]
		if !ok {
			level = set[0]
		}
		if level == "off" {
			level = "none" // Istio's word
		}
		out = append(out, scopeJSON{Name: name, Description: all[name], OutputLevel: level, StackTraceLevel: "none"})
	}
	return out
}
