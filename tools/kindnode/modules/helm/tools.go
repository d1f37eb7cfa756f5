//go:build tools

// Package helm pins the program with which end-to-end tests install the charts as people do.
package helm

import _ "helm.sh/helm/v4/cmd/helm"
