//go:build linux

package sandbox

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/sandbox"
)

func up(s *shared) *cobra.Command {
	var files, publish []string
	var nodes int
	var bin, profile, redirection string
	var wait bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a sandbox, and apply manifests to it",
		Example: "  istioctl sandbox up -f samples/bookinfo/platform/kube/bookinfo.yaml --publish 127.0.0.1:9080=default/productpage:9080\n" +
			"  istioctl sandbox label namespace default istio.io/dataplane-mode=ambient",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			manifests, err := read(files, cmd.InOrStdin())
			if err != nil {
				return err
			}
			begin := time.Now()
			client, err := sandbox.Up(cmd.Context(), sandbox.Options{
				Name: s.name, StateDir: s.dir(), Nodes: nodes, BinDir: bin, Profile: profile, Publish: publish, Redirection: redirection,
				Log: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn})),
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "sandbox %s is up after %.1f s\n", s.called(), time.Since(begin).Seconds())
			var expected []string // namespaces in which pods will be
			for _, m := range manifests {
				results, err := client.ApplyTo(cmd.Context(), s.namespace, m.name, m.data)
				printResults(cmd.OutOrStdout(), results)
				if err != nil {
					return err
				}
				expected = append(expected, withPods(results)...)
			}
			slices.Sort(expected)
			for _, namespace := range slices.Compact(expected) {
				if wait {
					err = errors.Join(err, client.WaitReady(cmd.Context(), namespace))
				}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringSliceVarP(&files, "filename", "f", nil, "manifests to apply: files, directories, or - for standard input")
	f.IntVar(&nodes, "nodes", 2, "number of nodes")
	f.StringVar(&bin, "bin", besideMe(), "directory of the programs of the mesh and the samples")
	f.StringVar(&profile, "profile", sandbox.ProfileAmbient, "what runs besides your pods: ambient (the mesh), demo (with an ingress gateway), or none")
	f.StringArrayVar(&publish, "publish", nil, "port on this machine for a Service: address:port=namespace/service:port")
	f.StringVar(&redirection, "redirect-backend", "", "how traffic of pods gets to ztunnel: sklookup, nft, iptables, or empty for the CNI agent's own choice")
	f.BoolVar(&wait, "wait", true, "wait until the pods are ready")
	return cmd
}

// withPods are the namespaces of the objects that make pods.
func withPods(results []sandbox.Result) []string {
	var out []string
	for _, r := range results {
		kind, _, _ := strings.Cut(r.Object, "/")
		switch kind {
		case "pod", "deployment.apps", "replicaset.apps", "statefulset.apps", "daemonset.apps":
			out = append(out, r.Namespace)
		}
	}
	return out
}

// besideMe is the directory of this program.
func besideMe() string {
	self, err := os.Executable()
	if err != nil {
		return "."
	}
	return filepath.Dir(self)
}

func down(s *shared) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "End a sandbox and take everything of it away", Args: cobra.NoArgs,
		Example: "  istioctl sandbox down",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := sandbox.Down(cmd.Context(), s.dir()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "sandbox %s is down\n", s.called())
			return nil
		},
	}
}
