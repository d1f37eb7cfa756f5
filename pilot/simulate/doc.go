// Package simulate runs the control plane's translation over a set of objects, without a control plane: what it would serve to each
// proxy, and what would become of each object. It is the code that the control plane runs, so whoever explains or predicts what a mesh
// does (istioctl why, istioctl diff) cannot disagree with it.
//
//	objects → Completer.Complete (for manifests that no cluster has seen yet) → New → Mesh.Ambient, Mesh.Proxy, Mesh.Statuses
//
// Everything in it is a function of its arguments: there is no goroutine, no clock and no I/O.
package simulate
