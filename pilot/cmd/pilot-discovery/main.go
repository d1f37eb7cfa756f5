// Command pilot-discovery is the control plane.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/pilot/app"
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
	cmd := &cobra.Command{Use: "pilot-discovery", Short: "Control plane of the mesh", SilenceUsage: true, SilenceErrors: true}
	cmd.AddCommand(discovery(build), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), build) },
	})
	return cmd
}

func discovery(build telemetry.Build) *cobra.Command {
	cfg := app.Default()
	cfg.Build = build
	fromEnvironment(&cfg)
	var logLevel string
	var logJSON bool
	var registries []string
	cmd := &cobra.Command{
		Use:   "discovery",
		Short: "Serve xDS and certificates",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, levels := telemetry.NewLogger(os.Stdout, telemetry.Options{JSON: logJSON, Level: slog.LevelInfo})
			if err := levels.Set(strings.TrimPrefix(logLevel, "default:")); err != nil {
				return fmt.Errorf("--log_output_level: %w", err)
			}
			cfg.Log = log
			return app.Run(cmd.Context(), cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.HTTPAddr, "httpAddr", cfg.HTTPAddr, "address of readiness and debug endpoints")
	f.StringVar(&cfg.GRPCAddr, "grpcAddr", cfg.GRPCAddr, "address of xDS in plaintext")
	f.StringVar(&cfg.SecureGRPCAddr, "secureGRPCAddr", cfg.SecureGRPCAddr, "address of xDS and certificates over TLS")
	f.StringVar(&cfg.MonitoringAddr, "monitoringAddr", cfg.MonitoringAddr, "address of metrics, version and debug endpoints")
	f.StringVar(&cfg.ConfigDir, "configDir", "", "directory of manifests to serve, watched for changes")
	f.StringVar(&cfg.MeshConfigFile, "meshConfig", "", "file of the mesh configuration, watched for changes")
	f.StringVar(&cfg.Domain, "domain", cfg.Domain, "DNS suffix of Kubernetes Services")
	f.StringVar(&cfg.ClusterID, "clusterID", cfg.ClusterID, "name of the cluster")
	f.StringVar(&cfg.Network, "network", cfg.Network, "network of the cluster")
	f.StringVar(&cfg.Namespace, "namespace", cfg.Namespace, "namespace of the control plane")
	f.StringVar(&cfg.Revision, "revision", cfg.Revision, "revision of the control plane")
	f.DurationVar(&cfg.MaxConnectionAge, "keepaliveMaxServerConnectionAge", cfg.MaxConnectionAge, "age at which xDS clients are told to connect anew")
	f.StringVar(&cfg.CADir, "caDir", cfg.CADir, "directory of the certificate authority's key material")
	f.StringVar(&cfg.JWKSFile, "jwksFile", cfg.JWKSFile, "file of the keys that ServiceAccount tokens are signed with")
	f.StringVar(&cfg.JWTIssuer, "jwtIssuer", cfg.JWTIssuer, "issuer of ServiceAccount tokens")
	f.StringVar(&cfg.RootCertOut, "rootCertOut", cfg.RootCertOut, "file to write the root certificates to")
	f.StringSliceVar(&registries, "registries", []string{"Kubernetes"}, "accepted for compatibility; the source is --configDir")
	f.StringVar(&logLevel, "log_output_level", "default:info", "log levels: level, or scope:level, comma-separated")
	f.BoolVar(&logJSON, "log_as_json", false, "log JSON objects")
	return cmd
}

// fromEnvironment is the one table of environment variables. Flags count before them.
func fromEnvironment(cfg *app.Config) {
	for _, v := range []struct {
		name string
		set  func(string)
	}{
		{"CLUSTER_ID", func(s string) { cfg.ClusterID = s }},
		{"POD_NAME", func(s string) { cfg.PodName = s }},
		{"POD_NAMESPACE", func(s string) { cfg.Namespace = s }},
		{"REVISION", func(s string) { cfg.Revision = s }},
		{"CA_TRUSTED_NODE_ACCOUNTS", func(s string) { cfg.TrustedNodeAccounts = strings.Split(s, ",") }},
		{"TOKEN_AUDIENCES", func(s string) { cfg.TokenAudiences = strings.Split(s, ",") }},
	} {
		if s := os.Getenv(v.name); s != "" {
			v.set(s)
		}
	}
}
