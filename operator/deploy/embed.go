// Package deploy has the manifest of the in-cluster operator.
package deploy

import _ "embed"

// Operator is the manifest: YAML documents.
//
//go:embed operator.yaml
var Operator []byte
