// Package kindnetlite is the pod network of lab clusters: each node gets a route to the pods of every other node, a CNI
// configuration for its own range, and masquerading of what leaves the cluster. It has no NetworkPolicy.
package kindnetlite

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Node is what of a Kubernetes node matters here.
type Node struct {
	Name     string
	PodCIDRs []netip.Prefix
	IPs      []netip.Addr // internal addresses
}

// Route leads to the pods of another node.
type Route struct {
	To  netip.Prefix
	Via netip.Addr
}

// Plan is all that one node's network needs, given the nodes of the cluster.
type Plan struct {
	Routes   []Route
	Conflist string // the CNI configuration
	Rules    string // an nft script
}

// Decide computes the plan of the node called self. The ranges of all pods of the cluster are podSubnets.
func Decide(nodes []Node, self string, podSubnets []netip.Prefix) (Plan, error) {
	var plan Plan
	own := slices.IndexFunc(nodes, func(n Node) bool { return n.Name == self })
	if own < 0 {
		return plan, fmt.Errorf("node %s is not among the %d nodes of the cluster", self, len(nodes))
	}
	if len(nodes[own].PodCIDRs) == 0 {
		return plan, fmt.Errorf("node %s has no range of pod addresses yet", self)
	}
	for i, n := range nodes {
		if i == own {
			continue
		}
		for _, cidr := range n.PodCIDRs {
			if via := sameFamily(n.IPs, cidr.Addr()); via.IsValid() {
				plan.Routes = append(plan.Routes, Route{To: cidr.Masked(), Via: via})
			}
		}
	}
	slices.SortFunc(plan.Routes, func(a, b Route) int { return strings.Compare(a.To.String(), b.To.String()) })
	conflist, err := conflist(nodes[own].PodCIDRs)
	if err != nil {
		return plan, err
	}
	plan.Conflist = conflist
	plan.Rules = rules(nodes[own].PodCIDRs, podSubnets)
	return plan, nil
}

// ParsePrefixes reads a comma-separated list, as kind fills it into the manifest.
func ParsePrefixes(s string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for p := range strings.SplitSeq(s, ",") {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(p))
		if err != nil {
			return nil, fmt.Errorf("pod subnet: %w", err)
		}
		out = append(out, prefix)
	}
	return out, nil
}

func sameFamily(addrs []netip.Addr, as netip.Addr) netip.Addr {
	for _, a := range addrs {
		if a.Is4() == as.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// conflist is a CNI 0.3.1 configuration: a point-to-point link per pod, addresses from the node's own range. The state
// of the addresses is in /run, so that a node that restarts starts afresh.
func conflist(cidrs []netip.Prefix) (string, error) {
	type object map[string]any
	var routes, ranges []any
	for _, c := range cidrs {
		def := "0.0.0.0/0"
		if c.Addr().Is6() {
			def = "::/0"
		}
		routes = append(routes, object{"dst": def})
		ranges = append(ranges, []any{object{"subnet": c.Masked().String()}})
	}
	doc, err := json.MarshalIndent(object{
		"cniVersion": "0.3.1",
		"name":       "kindnet",
		"plugins": []any{
			object{
				"type": "ptp", "ipMasq": false, "mtu": 1500,
				"ipam": object{"type": "host-local", "dataDir": "/run/cni-ipam-state", "routes": routes, "ranges": ranges},
			},
			object{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	}, "", "  ")
	return string(doc) + "\n", err
}

// rules masquerades what the node's pods send to outside of the cluster's pods. Deleting and defining the table in one
// script replaces it atomically.
func rules(own, podSubnets []netip.Prefix) string {
	var b strings.Builder
	b.WriteString("table inet kindnetlite\ndelete table inet kindnetlite\ntable inet kindnetlite {\n")
	b.WriteString("\tchain postrouting {\n\t\ttype nat hook postrouting priority 100; policy accept;\n")
	for _, family := range []struct {
		word string
		is4  bool
	}{{"ip", true}, {"ip6", false}} {
		src, inside := inFamily(own, family.is4), inFamily(podSubnets, family.is4)
		if len(src) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\t\t%s saddr { %s } %[1]s daddr != { %[3]s } fib daddr type != local masquerade\n",
			family.word, strings.Join(src, ", "), strings.Join(inside, ", "))
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}

func inFamily(prefixes []netip.Prefix, is4 bool) []string {
	var out []string
	for _, p := range prefixes {
		if p.Addr().Is4() == is4 {
			out = append(out, p.Masked().String())
		}
	}
	return out
}

// SameNetwork reports whether a CNI configuration on disk, into which others may have chained their plugins, still
// has want's first plugin: then it is left alone.
func SameNetwork(onDisk, want []byte) bool {
	first := func(text []byte) string {
		var doc struct {
			Plugins []json.RawMessage `json:"plugins"`
		}
		if json.Unmarshal(text, &doc) != nil || len(doc.Plugins) == 0 {
			return ""
		}
		var plugin any
		if json.Unmarshal(doc.Plugins[0], &plugin) != nil {
			return ""
		}
		canonical, err := json.Marshal(plugin)
		if err != nil {
			return ""
		}
		return string(canonical)
	}
	return first(want) != "" && first(onDisk) == first(want)
}
