// Package upgradebed replaces node proxies under open connections, and counts what was dropped. Each proxy is a process of its own,
// as on a node; two pods, a control plane and a CNI agent are made here.
//
// net.go is the pods, plane.go the control plane, agent.go the CNI agent, proxy.go the processes, load.go the connections, and bed.go
// puts them together.
package upgradebed
