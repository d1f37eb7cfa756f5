//go:build tools

// Package istiod pins Istio's control plane, which ours is measured beside. No part of it is in any program of this project.
package istiod

import _ "istio.io/istio/pilot/cmd/pilot-discovery"
