// Package upgradebed replaces node proxies under open connections, and counts what was dropped. Each proxy is a process of its own,
// as on a node; two pods, a control plane and a CNI agent are made here.
//
// net.go is the pods, plane.go the control plane, agent.go the CNI agent, proxy.go the processes, envoy.go a foreign peer in the place of
// one, load.go the connections, tap.go what an eavesdropper sees of them, and bed.go puts them together.
package upgradebed
