package dump

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Sync is how far one proxy has come.
type Sync struct {
	Name      string          `json:"name"`
	Cluster   string          `json:"cluster,omitempty"`
	ControlBy string          `json:"istiod,omitempty"`
	Version   string          `json:"version,omitempty"`
	ProxyType string          `json:"proxyType,omitempty"`
	Types     map[string]Type `json:"types"`
}

// Type is how far a proxy has come with one type of resources.
type Type struct {
	State string `json:"state"`
	// Since is when the last of it was sent.
	Since *time.Time `json:"since,omitempty"`
	Error string     `json:"error,omitempty"`
}

// The states of a type.
const (
	Synced  = "SYNCED"
	Stale   = "STALE"
	NotSent = "NOT SENT"
	Refused = "ERROR"
	// Ignored is a type that the proxy does not ask for.
	Ignored = "IGNORED"
)

// shortType is the usual name of a type.
func shortType(url string) string {
	switch url[strings.LastIndexAny(url, "./")+1:] {
	case "Cluster":
		return "CDS"
	case "Listener":
		return "LDS"
	case "ClusterLoadAssignment":
		return "EDS"
	case "RouteConfiguration":
		return "RDS"
	case "ScopedRouteConfiguration":
		return "SRDS"
	case "TypedExtensionConfig":
		return "ECDS"
	case "Secret":
		return "SDS"
	case "NameTable":
		return "NDS"
	case "ProxyConfig":
		return "PCDS"
	case "Address", "Workload":
		return "WDS"
	case "Authorization":
		return "WADS"
	}
	return url
}

// ShortType is the usual name of a type: CDS.
func ShortType(url string) string { return shortType(url) }

// typeOrder is that of the columns; others follow by name.
func typeOrder() []string {
	return []string{"CDS", "LDS", "EDS", "RDS", "ECDS", "WDS", "WADS"}
}

// ReadSync reads an answer to /debug/syncz of the control plane of that name.
func ReadSync(data []byte, istiod string) ([]Sync, error) {
	root, err := decode(data)
	if err != nil {
		return nil, err
	}
	var out []Sync
	for _, p := range list(map[string]any{"list": root}, "list") {
		s := Sync{
			Name: text(p, "proxy"), Cluster: text(p, "clusterId"), ControlBy: istiod, Version: cmp.Or(text(p, "istioVersion"), text(p, "proxyVersion")),
			ProxyType: text(p, "proxyType"), Types: map[string]Type{},
		}
		for url, r := range object(p, "resources") {
			s.Types[shortType(url)] = typeOf(text(r, "sent"), text(r, "acked"), text(r, "lastError"), text(r, "sentTime"))
		}
		// Istio's own has a pair of fields for each type.
		for short, field := range map[string]string{"CDS": "cluster", "LDS": "listener", "RDS": "route", "EDS": "endpoint", "ECDS": "extensionconfig"} {
			sent, acked := text(p, field+"Sent"), text(p, field+"Acked")
			if _, known := s.Types[short]; !known && sent+acked != "" {
				s.Types[short] = typeOf(sent, acked, "", "")
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func typeOf(sent, acked, failure, when string) Type {
	t := Type{Error: failure}
	if at, err := time.Parse(time.RFC3339Nano, when); err == nil {
		t.Since = &at
	}
	switch {
	case failure != "":
		t.State = Refused
	case sent == "":
		t.State = NotSent
	case sent == acked:
		t.State = Synced
	default:
		t.State = Stale
	}
	return t
}

// sortSync orders proxies by name.
func sortSync(all []Sync) []Sync {
	out := slices.Clone(all)
	slices.SortStableFunc(out, func(a, b Sync) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ControlBy, b.ControlBy)) })
	return out
}

// types are those that a proxy has, in order.
func (s Sync) types() []string { return ordered(slices.Collect(maps.Keys(s.Types))) }

func ordered(types []string) []string {
	rank := func(t string) int {
		if i := slices.Index(typeOrder(), t); i >= 0 {
			return i
		}
		return len(typeOrder())
	}
	slices.SortFunc(types, func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) })
	return types
}

// SyncTable shows which types each proxy asks for. What is not in order is said with it: 3 (CDS,LDS STALE,EDS).
func SyncTable(all []Sync) *Table {
	t := &Table{Columns: []string{"NAME", "CLUSTER", "ISTIOD", "VERSION", "SUBSCRIBED TYPES"}, Gap: 5}
	for _, s := range sortSync(all) {
		var parts []string
		for _, name := range s.types() {
			if state := s.Types[name].State; state == Stale || state == Refused {
				name += " " + state
			}
			parts = append(parts, name)
		}
		types := "0"
		if len(parts) > 0 {
			types = fmt.Sprintf("%d (%s)", len(parts), strings.Join(parts, ","))
		}
		t.Rows = append(t.Rows, []string{s.Name, s.Cluster, s.ControlBy, s.Version, types})
	}
	return t
}

// SyncTypeTable shows how far each proxy has come with each type.
func SyncTypeTable(all []Sync, now time.Time) *Table {
	known := map[string]bool{}
	for _, s := range all {
		for name := range s.Types {
			known[name] = true
		}
	}
	types := ordered(slices.Collect(maps.Keys(known)))
	t := &Table{Columns: append([]string{"NAME", "CLUSTER", "ISTIOD", "VERSION"}, types...), Gap: 5}
	for _, s := range sortSync(all) {
		row := []string{s.Name, s.Cluster, s.ControlBy, s.Version}
		for _, name := range types {
			one, asked := s.Types[name]
			if !asked {
				row = append(row, Ignored)
				continue
			}
			row = append(row, one.describe(now))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func (t Type) describe(now time.Time) string {
	if t.Since == nil {
		return t.State
	}
	return fmt.Sprintf("%s (%s)", t.State, age(now.Sub(*t.Since)))
}

// age writes a duration in its largest unit.
func age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// Refusals are what proxies refused, in order.
func Refusals(all []Sync) []string {
	var out []string
	for _, s := range sortSync(all) {
		for _, name := range s.types() {
			if why := s.Types[name].Error; why != "" {
				out = append(out, fmt.Sprintf("%s refused %s: %s", s.Name, name, why))
			}
		}
	}
	return out
}

// Describe is the state with its age.
func (t Type) Describe(now time.Time) string { return t.describe(now) }

// Ordered are the types of a proxy in the usual order.
func (s Sync) Ordered() []string { return s.types() }
