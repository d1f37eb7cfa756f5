// Package crds has the CustomResourceDefinitions of the kinds that the mesh reads: its own, and those of others as they publish them.
package crds

import _ "embed"

// Istio are the definitions of Istio's kinds: YAML documents. The chart base installs the same.
//
//go:embed istio.gen.yaml
var Istio []byte

// Isthmus are the definitions of the mesh's own kinds: YAML documents. The chart base installs the same.
//
//go:embed isthmus.yaml
var Isthmus []byte

// GatewayAPI are the definitions of the Gateway API's standard channel: YAML documents.
//
//go:embed gateway-api.gen.yaml
var GatewayAPI []byte
