// Package network makes the sandbox's nodes: network namespaces that are joined by a fabric, a bridge in a network
// namespace of its own. The machine's own network namespace takes no part.
package network

import (
	"fmt"
	"net/netip"
)

// Address ranges of a sandbox. They exist inside its namespaces only, so they clash with nothing of the machine's.
const (
	serviceRange4 = "10.96.0.0/16"
	serviceRange6 = "fd00:10:96::/112"
	// MaxNodes is what the address plan has room for.
	MaxNodes = 200
)

// ServiceRanges are the ranges of ClusterIPs.
func ServiceRanges() (v4, v6 netip.Prefix) {
	return netip.MustParsePrefix(serviceRange4), netip.MustParsePrefix(serviceRange6)
}

// NodePlan is a node's addresses.
type NodePlan struct {
	Index int
	Name  string
	// Addr4 and Addr6 are the node's addresses on the fabric.
	Addr4, Addr6 netip.Prefix
	// Pods4 and Pods6 are the ranges of its pods.
	Pods4, Pods6 netip.Prefix
}

// PlanNode returns the addresses of the node with the given index, from 1.
func PlanNode(index int) NodePlan {
	return NodePlan{
		Index: index,
		Name:  fmt.Sprintf("node-%d", index),
		Addr4: netip.MustParsePrefix(fmt.Sprintf("192.168.240.%d/24", 10+index)),
		Addr6: netip.MustParsePrefix(fmt.Sprintf("fd00:192:168:240::%x/64", 10+index)),
		Pods4: netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", index)),
		Pods6: netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%x::/64", index)),
	}
}
