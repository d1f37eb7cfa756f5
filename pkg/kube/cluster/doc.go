// Package cluster watches a Kubernetes API server and delivers the objects that a mesh reads as a kube.Source.
//
// Each kind is listed and watched by a reflector of client-go that keeps nothing itself. What it reads is reduced to the fields
// that the mesh reads (strip.go says which), queued, and handed to the Sink from one goroutine. The only copy of an object is
// the one that the Sink gets, which the source refers to in order to tell, after an outage, what became different.
package cluster
