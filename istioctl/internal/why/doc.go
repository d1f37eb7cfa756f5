// Package why answers what happens to a connection or request in a mesh, and why. It asks the code that decides: pilot/simulate for what
// proxies are given, ztunnel/l4 and pkg/authz for connections, waypoint/l7 for requests. What it adds is the walk from one to the
// next, the names of the objects behind a decision, and what can be done about it. Only what a cluster's network does by itself
// (NetworkPolicies, Services without the mesh) is judged here.
//
//	World (objects and where they are written) → Model (what every proxy has) → Model.Ask(Question) → Report
package why
