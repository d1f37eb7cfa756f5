// Command operator keeps the cluster that it runs in, in line with an IstioOperator object.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/operator/controller"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// Set by the linker.
var version, revision string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	build := telemetry.NewBuild(version, revision)
	var kubeconfig, level string
	var asJSON bool
	cfg := controller.Config{Namespace: "istio-system", Resync: 3 * time.Minute}
	cmd := &cobra.Command{
		Use: "operator", Short: "Keep a cluster in line with an IstioOperator object", SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, levels := telemetry.NewLogger(cmd.OutOrStdout(), telemetry.Options{JSON: asJSON})
			if err := levels.Set(level); err != nil {
				return fmt.Errorf("--log_output_level: %w", err)
			}
			var err error
			if cfg.REST, err = connect(kubeconfig); err != nil {
				return err
			}
			cfg.Log = log
			cfg.Render.Version = build.Version
			if cfg.Render.Tag == "" && build.Version != "dev" {
				cfg.Render.Tag = build.Version
			}
			c, err := controller.New(cfg)
			if err != nil {
				return err
			}
			log.Info("operator runs", "version", build.Version, "namespace", cfg.Namespace)
			return c.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&kubeconfig, "kubeconfig", "", "file of the cluster's address and credentials; without it, those of the pod that this runs in")
	f.StringVar(&cfg.Namespace, "namespace", cfg.Namespace, "namespace of the IstioOperator object")
	f.DurationVar(&cfg.Resync, "resync", cfg.Resync, "how often the cluster is brought in line though the object is unchanged")
	f.DurationVar(&cfg.Timeout, "readiness-timeout", 5*time.Minute, "how long a component may take to become ready")
	f.StringVar(&cfg.Render.Hub, "hub", "", "registry of the images, for objects that name none")
	f.StringVar(&cfg.Render.Tag, "tag", "", "tag of the images, for objects that name none")
	f.StringVar(&level, "log_output_level", "default:info", "log levels: level, or scope:level, comma-separated")
	f.BoolVar(&asJSON, "log_as_json", false, "log JSON objects")
	cmd.AddCommand(&cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), build) },
	})
	return cmd
}

func connect(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags("", kubeconfig)
}
