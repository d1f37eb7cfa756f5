// Package mesh has the manifests of the mesh's own pods, as they run in the sandbox.
package mesh

import (
	"bytes"
	_ "embed"
)

// Namespace of the mesh's own pods.
const Namespace = "istio-system"

// Directories of the sandbox that the mesh's pods mount by these host paths.
const (
	PathConfig = "/sandbox/config"
	PathCA     = "/sandbox/ca"
	PathRoot   = "/sandbox/root"
	PathKeys   = "/sandbox/keys"
	PathAPI    = "/sandbox/api"
	PathStatus = "/sandbox/status"
)

//go:embed mesh.yaml
var manifests []byte

// placeholder is where the choice of redirection goes.
const placeholder = "REDIRECT_BACKEND, value: \"\""

// Manifests of the namespace, istiod, ztunnel and the CNI agent, which redirects by the back end named; "" is its own choice.
func Manifests(redirection string) []byte {
	return bytes.Replace(manifests, []byte(placeholder), []byte("REDIRECT_BACKEND, value: \""+redirection+"\""), 1)
}
