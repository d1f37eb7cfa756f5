package dump

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ListenerFilter says which listeners are meant.
type ListenerFilter struct {
	Address, Type string
	Port          int
	// Verbose shows matches and destinations.
	Verbose bool
}

// IsWaypoint tells whether the dump is a waypoint's: of its listeners the chains count, not the addresses.
func (e *Envoy) IsWaypoint() bool { return strings.HasPrefix(e.Node, "waypoint~") }

// listenerAddresses are all addresses of a listener.
func listenerAddresses(l tree) (shown []string, port int64) {
	if at(l, "internalListener") != nil {
		return []string{"envoy://" + text(l, "name")}, 0
	}
	all := []any{at(l, "address")}
	for _, more := range list(l, "additionalAddresses") {
		all = append(all, at(more, "address"))
	}
	for _, a := range all {
		whole, host, p := addressText(a)
		if at(a, "socketAddress") != nil {
			whole = host
		}
		shown = append(shown, whole)
		port = max(port, p)
	}
	return shown, port
}

// listenerType is the protocol that the first chain speaks: HTTP, TCP, HTTP+TCP or UDP.
func listenerType(l tree) string {
	if text(l, "address", "socketAddress", "protocol") == "UDP" {
		return "UDP"
	}
	kinds := map[string]bool{}
	for _, chain := range chains(l) {
		for _, f := range list(chain, "filters") {
			switch kindOf(at(f, "typedConfig")) {
			case "HttpConnectionManager":
				kinds["HTTP"] = true
			case "TcpProxy":
				kinds["TCP"] = true
			}
		}
	}
	switch {
	case kinds["HTTP"] && kinds["TCP"]:
		return "HTTP+TCP"
	case kinds["HTTP"]:
		return "HTTP"
	case kinds["TCP"]:
		return "TCP"
	}
	return "UNKNOWN"
}

func (f ListenerFilter) match(l tree) bool {
	addresses, port := listenerAddresses(l)
	if f.Address != "" && !slices.Contains(addresses, f.Address) {
		return false
	}
	return (f.Port == 0 || int64(f.Port) == port) && (f.Type == "" || strings.EqualFold(f.Type, listenerType(l)))
}

func (e *Envoy) selectListeners(f ListenerFilter) []resource {
	out := slices.DeleteFunc(slices.Clone(e.listeners), func(r resource) bool { return r.name == "" || !f.match(r.body) })
	slices.SortStableFunc(out, func(a, b resource) int {
		addressA, portA := listenerAddresses(a.body)
		addressB, portB := listenerAddresses(b.body)
		return cmp.Or(cmp.Compare(portA, portB), slices.Compare(addressA, addressB), cmp.Compare(a.name, b.name))
	})
	return out
}

// Listeners are the listeners whole.
func (e *Envoy) Listeners(f ListenerFilter) []any { return bodies(e.selectListeners(f)) }

// ListenerTable shows the listeners by address.
func (e *Envoy) ListenerTable(f ListenerFilter) *Table {
	t := &Table{Columns: []string{"ADDRESSES", "PORT", "MATCH", "DESTINATION"}, Gap: 1}
	if !f.Verbose {
		t.Columns = []string{"ADDRESSES", "PORT", "TYPE"}
	}
	for _, r := range e.selectListeners(f) {
		addresses, port := listenerAddresses(r.body)
		start := []string{strings.Join(addresses, ","), strconv.FormatInt(port, 10)}
		if !f.Verbose {
			t.Rows = append(t.Rows, append(start, listenerType(r.body)))
			continue
		}
		if listenerType(r.body) == "UDP" && len(chains(r.body)) == 0 {
			t.Rows = append(t.Rows, append(start, "UDP", "-"))
			continue
		}
		for _, chain := range chains(r.body) {
			row := append(slices.Clone(start), chainMatch(chain), destination(chain))
			if !slices.ContainsFunc(t.Rows, func(o []string) bool { return slices.Equal(o, row) }) {
				t.Rows = append(t.Rows, row)
			}
		}
	}
	return t
}

// WaypointTable shows the listeners by the chains that their matchers lead to.
func (e *Envoy) WaypointTable(f ListenerFilter) *Table {
	t := &Table{Columns: []string{"LISTENER", "CHAIN", "MATCH", "DESTINATION"}, Gap: 1}
	for _, r := range e.selectListeners(f) {
		matches := matchesByChain(at(r.body, "filterChainMatcher"))
		for _, chain := range chains(r.body) {
			found := matches[text(chain, "name")]
			if len(found) == 0 {
				found = []string{chainMatch(chain)}
			}
			for _, match := range found {
				t.Rows = append(t.Rows, []string{"envoy://" + r.name, text(chain, "name"), match, destination(chain)})
			}
		}
	}
	return t
}

// chains are the filter chains, the default last.
func chains(l tree) []any {
	out := slices.Clone(list(l, "filterChains"))
	if d := at(l, "defaultFilterChain"); d != nil {
		out = append(out, d)
	}
	return out
}

// chainMatch describes what connections a chain takes.
func chainMatch(chain tree) string {
	m := at(chain, "filterChainMatch")
	var parts []string
	if names := list(m, "serverNames"); len(names) > 0 {
		parts = append(parts, "SNI: "+joined(names))
	}
	if transport := text(m, "transportProtocol"); transport != "" {
		parts = append(parts, "Trans: "+transport)
	}
	if apps := list(m, "applicationProtocols"); len(apps) > 0 {
		app := joined(apps)
		switch app {
		case "http/1.0,http/1.1,h2c":
			app = "HTTP"
		case "istio,istio-peer-exchange,istio-http/1.0,istio-http/1.1,istio-h2":
			app = "Istio"
		}
		parts = append(parts, "App: "+app)
	}
	if port := number(m, "destinationPort"); port != 0 {
		parts = append(parts, "Port: "+strconv.FormatInt(port, 10))
	}
	var prefixes []any
	for _, p := range list(m, "prefixRanges") {
		prefixes = append(prefixes, prefix(p))
	}
	if len(prefixes) > 0 {
		parts = append(parts, "Addr: "+joined(prefixes))
	}
	if len(parts) == 0 {
		return "ALL"
	}
	return strings.Join(parts, "; ")
}

func joined(all []any) string {
	var out []string
	for _, v := range all {
		out = append(out, fmt.Sprint(v))
	}
	return strings.Join(out, ",")
}

// prefix writes a range of addresses; one that is a single address as that.
func prefix(p tree) string {
	address, length := text(p, "addressPrefix"), number(p, "prefixLen")
	if length == 32 && !strings.Contains(address, ":") || length == 128 {
		return address
	}
	return address + "/" + strconv.FormatInt(length, 10)
}

// destination says where a chain leads.
func destination(chain tree) string {
	for _, f := range list(chain, "filters") {
		config := at(f, "typedConfig")
		switch kindOf(config) {
		case "HttpConnectionManager":
			if name := text(config, "rds", "routeConfigName"); name != "" {
				return "Route: " + name
			}
			return "Inline Route: " + inlineRoute(at(config, "routeConfig"))
		case "TcpProxy":
			return tcpDestination(config)
		}
	}
	return "Non-HTTP/Non-TCP"
}

func inlineRoute(config tree) string {
	var out []string
	for _, host := range list(config, "virtualHosts") {
		for _, r := range list(host, "routes") {
			out = append(out, pathMatch(at(r, "match")))
		}
	}
	return strings.Join(slices.Compact(out), ", ")
}

func tcpDestination(config tree) string {
	name := text(config, "cluster")
	if weighted := list(config, "weightedClusters", "clusters"); len(weighted) > 0 {
		var parts []string
		for _, w := range weighted {
			parts = append(parts, fmt.Sprintf("%s (%d)", text(w, "name"), number(w, "weight")))
		}
		return "Clusters: " + strings.Join(parts, ", ")
	}
	if name == "PassthroughCluster" || name == "BlackHoleCluster" {
		return name
	}
	return "Cluster: " + name
}
