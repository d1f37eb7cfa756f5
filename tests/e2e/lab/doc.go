// Package lab is the handle by which end-to-end suites hold a cluster: they apply manifests, run commands in pods, put load on
// services while something is restarted, restart nodes, and collect what explains a failure.
package lab
