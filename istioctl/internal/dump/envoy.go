// Package dump reads what proxies and the control plane say about themselves, and makes the rows of tables from it. It is pure: where
// the bytes come from is reach's business.
//
// It reads the admin interface of Envoy, which the waypoint's has the shape of, without knowing the messages: whatever is new in one is
// passed on. Private keys are taken out before anything else sees them.
package dump

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
)

// Envoy is the configuration of a proxy.
type Envoy struct {
	// Node is the proxy's id, such as waypoint~10.0.0.1~pod.namespace~namespace.svc.cluster.local.
	Node      string
	bootstrap tree
	sections  []any
	// In the order of the dump; static ones first.
	clusters, listeners, routes, endpoints, secrets, extensions []resource
	// saysEndpoints is whether the dump has a section of endpoints.
	saysEndpoints bool
	// statuses are of /clusters, and count before endpoints.
	statuses []any
}

// resource is one resource of a type.
type resource struct {
	name string
	body tree
	// entry is the dump's message about it.
	entry tree
	// state is ACTIVE or WARMING.
	state string
	// static is one that no control plane has sent.
	static bool
}

const warming = "WARMING"

// ReadEnvoy reads an answer to /config_dump, or one to /clusters?format=json, of Envoy or of ours.
func ReadEnvoy(data []byte) (*Envoy, error) {
	root, err := decode(data)
	if err != nil {
		return nil, err
	}
	e := &Envoy{}
	if at(root, "clusterStatuses") != nil {
		e.statuses = list(root, "clusterStatuses")
		return e, nil
	}
	if at(root, "workloads") != nil {
		return nil, errors.New("it is the configuration of a ztunnel: look at it by istioctl ztunnel-config")
	}
	if at(root, "configs") == nil {
		return nil, errors.New("it is no configuration dump: there is no field configs")
	}
	e.sections = list(root, "configs")
	for _, section := range e.sections {
		e.section(section)
	}
	return e, nil
}

// ReadClusters adds an answer to /clusters?format=json: the state of endpoints.
func (e *Envoy) ReadClusters(data []byte) error {
	root, err := decode(data)
	if err != nil {
		return err
	}
	if object(root) == nil {
		return errors.New("it is no state of clusters")
	}
	e.statuses = list(root, "clusterStatuses")
	return nil
}

func (e *Envoy) section(s tree) {
	switch kindOf(s) {
	case "BootstrapConfigDump":
		e.bootstrap = map[string]any{"bootstrap": at(s, "bootstrap"), "lastUpdated": at(s, "lastUpdated")}
		e.Node = text(s, "bootstrap", "node", "id")
	case "ClustersConfigDump":
		e.clusters = append(e.clusters, collect(s, "cluster", "staticClusters", "dynamicActiveClusters", "dynamicWarmingClusters")...)
	case "RoutesConfigDump":
		e.routes = append(e.routes, collect(s, "routeConfig", "staticRouteConfigs", "dynamicRouteConfigs")...)
	case "EndpointsConfigDump":
		e.saysEndpoints = true
		e.endpoints = append(e.endpoints, collect(s, "endpointConfig", "staticEndpointConfigs", "dynamicEndpointConfigs")...)
	case "EcdsConfigDump":
		e.extensions = append(e.extensions, collect(s, "ecdsFilter", "ecdsFilters")...)
	case "SecretsConfigDump":
		e.secrets = append(e.secrets, collect(s, "secret", "staticSecrets", "dynamicActiveSecrets", "dynamicWarmingSecrets")...)
	case "ListenersConfigDump":
		e.listeners = append(e.listeners, collect(s, "listener", "staticListeners")...)
		for _, entry := range list(s, "dynamicListeners") {
			// One that is replaced serves until the next is warm.
			for _, state := range []struct{ field, name string }{{"activeState", "ACTIVE"}, {"warmingState", warming}, {"drainingState", "DRAINING"}} {
				if body := at(entry, state.field, "listener"); body != nil {
					e.listeners = append(e.listeners, resource{name: text(body, "name"), body: body, entry: entry, state: state.name})
					break
				}
			}
		}
	}
}

func collect(section tree, body string, fields ...string) []resource {
	var out []resource
	for i, field := range fields {
		state := "ACTIVE"
		if i == 2 {
			state = warming
		}
		for _, entry := range list(section, field) {
			r := resource{body: at(entry, body), entry: entry, state: state, static: strings.HasPrefix(field, "static")}
			r.name = text(r.body, "name")
			if r.name == "" {
				r.name = text(entry, "name")
			}
			out = append(out, r)
		}
	}
	return out
}

// Bootstrap is what the proxy started with.
func (e *Envoy) Bootstrap() (any, error) {
	if at(e.bootstrap, "bootstrap") == nil {
		return nil, errors.New("there is no bootstrap in the dump")
	}
	return e.bootstrap, nil
}

// Whole is the dump itself, without secrets.
func (e *Envoy) Whole() any {
	out := map[string]any{"configs": e.sections}
	if e.statuses != nil {
		out["clusterStatuses"] = e.statuses
	}
	return out
}

// Refusal is a resource of which the proxy has refused a version.
type Refusal struct{ Type, Name, Details string }

// Refusals are the resources that the proxy has in an older version than the control plane wants, or not at all.
func (e *Envoy) Refusals() []Refusal {
	var out []Refusal
	add := func(kind, name string, entry tree) {
		if details := text(entry, "errorState", "details"); details != "" {
			out = append(out, Refusal{kind, name, details})
		}
	}
	for _, s := range e.sections {
		for _, entry := range list(s, "dynamicListeners") {
			add("LDS", text(entry, "name"), entry)
		}
	}
	for _, of := range []struct {
		kind string
		all  []resource
	}{{"CDS", e.clusters}, {"RDS", e.routes}, {"EDS", e.endpoints}} {
		for _, r := range of.all {
			add(of.kind, r.name, r.entry)
		}
	}
	return out
}

// bodies are the resources themselves, for -o. Their type is known to whoever asks.
func bodies(all []resource) []any {
	out := []any{}
	for _, r := range all {
		body := maps.Clone(object(r.body))
		delete(body, "@type")
		out = append(out, body)
	}
	return out
}

// BootstrapTable is the gist of the bootstrap.
func (e *Envoy) BootstrapTable() *Table {
	node := at(e.bootstrap, "bootstrap", "node")
	row := func(name string, path ...string) []string { return []string{name, orDash(text(node, path...))} }
	return &Table{Columns: []string{"FIELD", "VALUE"}, Gap: 5, Rows: [][]string{
		row("Node", "id"), row("Cluster", "cluster"), row("Istio Version", "metadata", "ISTIO_VERSION"),
		row("Istio Proxy Version", "metadata", "ISTIO_PROXY_SHA"), row("Service Account", "metadata", "SERVICE_ACCOUNT"),
		row("Discovery Address", "metadata", "PROXY_CONFIG", "discoveryAddress"),
	}}
}

// Extensions are the filters that are configured by name, whole.
func (e *Envoy) Extensions() []any { return bodies(e.extensions) }

// ExtensionTable shows the filters that are configured by name.
func (e *Envoy) ExtensionTable() *Table {
	t := &Table{Columns: []string{"ECDS NAME", "TYPE"}, Gap: 5}
	for _, r := range e.extensions {
		t.Rows = append(t.Rows, []string{r.name, text(r.body, "typedConfig", "@type")})
	}
	return t
}

// IsEnvoy tells whether an answer is the configuration of an Envoy or a waypoint.
func IsEnvoy(data []byte) bool {
	var probe struct {
		Configs json.RawMessage `json:"configs"`
	}
	return json.Unmarshal(data, &probe) == nil && probe.Configs != nil
}
