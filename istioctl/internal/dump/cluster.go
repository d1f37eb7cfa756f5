package dump

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// ClusterFilter says which clusters are meant; what is empty does not count.
type ClusterFilter struct {
	FQDN, Direction, Subset string
	Port                    int
}

// clusterName is the meaning of a cluster's name, direction|port|subset|fqdn.
type clusterName struct {
	direction, subset, fqdn string
	port                    int
}

func parseClusterName(name string) clusterName {
	parts := strings.Split(name, "|")
	if len(parts) != 4 {
		return clusterName{fqdn: name}
	}
	port, _ := strconv.Atoi(parts[1])
	return clusterName{direction: parts[0], port: port, subset: parts[2], fqdn: parts[3]}
}

func (n clusterName) compare(o clusterName) int {
	return cmp.Or(cmp.Compare(n.fqdn, o.fqdn), cmp.Compare(n.subset, o.subset), cmp.Compare(n.port, o.port), cmp.Compare(n.direction, o.direction))
}

func (f ClusterFilter) match(name string) bool {
	n := parseClusterName(name)
	return strings.Contains(n.fqdn, f.FQDN) && strings.Contains(n.direction, f.Direction) && strings.Contains(n.subset, f.Subset) &&
		(f.Port == 0 || f.Port == n.port)
}

func (e *Envoy) selectClusters(f ClusterFilter) []resource {
	out := slices.DeleteFunc(slices.Clone(e.clusters), func(r resource) bool { return !f.match(r.name) })
	slices.SortStableFunc(out, func(a, b resource) int { return parseClusterName(a.name).compare(parseClusterName(b.name)) })
	return out
}

// Clusters are the clusters whole.
func (e *Envoy) Clusters(f ClusterFilter) []any { return bodies(e.selectClusters(f)) }

// ClusterTable shows the clusters.
func (e *Envoy) ClusterTable(f ClusterFilter) *Table {
	t := &Table{Columns: []string{"SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"}, Gap: 5}
	for _, r := range e.selectClusters(f) {
		n := parseClusterName(r.name)
		port := "-"
		if n.port != 0 {
			port = strconv.Itoa(n.port)
		}
		kind := cmp.Or(text(r.body, "clusterType", "name"), text(r.body, "type"), "STATIC")
		t.Rows = append(t.Rows, []string{n.fqdn, port, orDash(n.subset), orDash(n.direction), kind, managedBy(r.body, "destination-rule")})
	}
	return t
}

// managedBy is name.namespace of the object that the metadata of a resource point at. An empty kind is any.
func managedBy(resource tree, kind string) string {
	path := text(resource, "metadata", "filterMetadata", "istio", "config")
	if path == "" {
		return ""
	}
	// /apis/GROUP/VERSION/namespaces/NAMESPACE/KIND/NAME
	parts := strings.Split(path, "/")
	if len(parts) != 8 || (kind != "" && parts[6] != kind) {
		return ""
	}
	return parts[7] + "." + parts[5]
}
