package dump

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"
)

// EndpointFilter says which endpoints are meant.
type EndpointFilter struct {
	Cluster, Address, Status string
	Port                     int
}

// endpoint is one of a cluster.
type endpoint struct {
	cluster, address, host, status, outlier string
	port                                    int64
}

// addressText writes an address as people do, and its host and port where it has them.
func addressText(a tree) (shown, host string, port int64) {
	if s := at(a, "socketAddress"); s != nil {
		host, port = text(s, "address"), number(s, "portValue")
		return net.JoinHostPort(host, strconv.FormatInt(port, 10)), host, port
	}
	if path := text(a, "pipe", "path"); path != "" {
		return "unix://" + path, path, 0
	}
	if in := at(a, "envoyInternalAddress"); in != nil {
		id := text(in, "endpointId")
		shown = "envoy://" + text(in, "serverListenerName") + "/" + id
		if h, p, err := net.SplitHostPort(id); err == nil {
			port, _ := strconv.ParseInt(p, 10, 64)
			return shown, h, port
		}
		return shown, "", 0
	}
	return "", "", 0
}

func (f EndpointFilter) match(e endpoint) bool {
	return (f.Cluster == "" || f.Cluster == e.cluster) && (f.Address == "" || f.Address == e.host) && (f.Port == 0 || int64(f.Port) == e.port) &&
		(f.Status == "" || strings.EqualFold(f.Status, e.status))
}

// fromStatus reads a host of /clusters.
func fromStatus(cluster string, host tree) endpoint {
	e := endpoint{cluster: cluster, outlier: "OK"}
	e.address, e.host, e.port = addressText(at(host, "address"))
	e.status = cmp.Or(text(host, "healthStatus", "edsHealthStatus"), "UNKNOWN")
	if flag(host, "healthStatus", "failedOutlierCheck") {
		e.outlier = "FAILED"
	}
	return e
}

// fromConfig reads an endpoint of a ClusterLoadAssignment; what the proxy found out about it is not in there.
func fromConfig(cluster string, host tree) endpoint {
	e := endpoint{cluster: cluster, outlier: "OK"}
	e.address, e.host, e.port = addressText(at(host, "endpoint", "address"))
	// What is not said is served.
	e.status = cmp.Or(text(host, "healthStatus"), "HEALTHY")
	if e.status == "UNKNOWN" {
		e.status = "HEALTHY"
	}
	return e
}

// each calls f for all endpoints, with what it was read from.
func (e *Envoy) eachEndpoint(f func(endpoint, tree)) {
	if e.statuses != nil {
		for _, c := range e.statuses {
			for _, host := range list(c, "hostStatuses") {
				f(fromStatus(text(c, "name"), host), host)
			}
		}
		return
	}
	for _, r := range e.endpoints {
		for _, locality := range list(r.body, "endpoints") {
			for _, host := range list(locality, "lbEndpoints") {
				f(fromConfig(text(r.body, "clusterName"), host), host)
			}
		}
	}
}

// EndpointTable shows the endpoints.
func (e *Envoy) EndpointTable(f EndpointFilter) *Table {
	var all []endpoint
	e.eachEndpoint(func(one endpoint, _ tree) {
		if f.match(one) {
			all = append(all, one)
		}
	})
	slices.SortStableFunc(all, func(a, b endpoint) int {
		return cmp.Or(cmp.Compare(a.address, b.address), cmp.Compare(a.cluster, b.cluster))
	})
	t := &Table{Columns: []string{"ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"}, Gap: 5}
	for _, one := range slices.Compact(all) {
		t.Rows = append(t.Rows, []string{one.address, one.status, one.outlier, one.cluster})
	}
	return t
}

// Endpoints are the clusters whole, with those of their endpoints that are meant.
func (e *Envoy) Endpoints(f EndpointFilter) []any {
	type group struct {
		name  string
		hosts []any
	}
	var groups []*group
	e.eachEndpoint(func(one endpoint, whole tree) {
		if !f.match(one) {
			return
		}
		if len(groups) == 0 || groups[len(groups)-1].name != one.cluster {
			groups = append(groups, &group{name: one.cluster})
		}
		last := groups[len(groups)-1]
		last.hosts = append(last.hosts, whole)
	})
	whole := map[string]map[string]any{}
	for _, c := range e.statuses {
		whole[text(c, "name")] = object(c)
	}
	out := []any{}
	for _, g := range groups {
		shown := map[string]any{"name": g.name}
		for key, value := range whole[g.name] {
			shown[key] = value
		}
		shown["hostStatuses"] = g.hosts
		out = append(out, shown)
	}
	return out
}

// HasEndpoints is whether the dump says anything about endpoints.
func (e *Envoy) HasEndpoints() bool { return e.statuses != nil || len(e.endpoints) > 0 }
