// Command istio-cni is the CNI plugin.
package main

import (
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/isthmus-mesh/isthmus/cni/internal/plugin"
)

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: plugin.Add, Del: plugin.Del, Check: plugin.Check}, version.All, "istio-cni: enrols pods into the mesh")
}
