//go:build !linux

// Package sandbox has the commands that run the mesh on this machine without a cluster, where that can be done.
package sandbox

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// Main never is the sandbox's supervisor.
func Main([]string) (handled bool, exit int) { return false, 0 }

// New returns a command that says where there are sandboxes.
func New() *cobra.Command {
	return &cobra.Command{
		Use: "sandbox", Short: "Run the mesh on this machine, without a cluster (on Linux only)", DisableFlagParsing: true,
		Example: "  istioctl sandbox up -f samples/bookinfo/platform/kube/bookinfo.yaml",
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("the sandbox needs Linux, whose namespaces are its nodes and pods, and this is %s: use a virtual machine, or a cluster such as kind", runtime.GOOS)
		},
	}
}
