// Command pilot-discovery is the control plane.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

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
	environment := fromEnvironment(&cfg)
	var logLevel string
	var logJSON bool
	var registries []string
	httpsAddr, networks := ":15017", ""
	cmd := &cobra.Command{
		Use:   "discovery",
		Short: "Serve xDS and certificates",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if environment != nil {
				return environment
			}
			log, levels := telemetry.NewLogger(os.Stdout, telemetry.Options{JSON: logJSON, Level: slog.LevelInfo})
			if err := levels.Set(strings.TrimPrefix(logLevel, "default:")); err != nil {
				return fmt.Errorf("--log_output_level: %w", err)
			}
			cfg.Log = log
			if networks != "" {
				return errors.New("--networksConfig is not supported: name networks by the label topology.istio.io/network")
			}
			if registries = slices.DeleteFunc(registries, func(r string) bool { return r == "Kubernetes" }); len(registries) > 0 {
				return fmt.Errorf("--registries: %q is not supported; only Kubernetes", registries)
			}
			if cmd.Flags().Changed("httpsAddr") {
				log.Warn("--httpsAddr has no effect: webhooks need the Kubernetes API")
			}
			return app.Run(cmd.Context(), cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.HTTPAddr, "httpAddr", cfg.HTTPAddr, "address of readiness and debug endpoints")
	f.StringVar(&cfg.GRPCAddr, "grpcAddr", cfg.GRPCAddr, "address of xDS in plaintext")
	f.StringVar(&cfg.SecureGRPCAddr, "secureGRPCAddr", cfg.SecureGRPCAddr, "address of xDS and certificates over TLS")
	f.StringVar(&cfg.MonitoringAddr, "monitoringAddr", cfg.MonitoringAddr, "address of metrics, version and debug endpoints")
	f.StringVar(&cfg.ConfigDir, "configDir", "", "directory of manifests to serve, watched for changes")
	f.StringVar(&cfg.StatusDir, "statusDir", "", "directory to write the status of each object to, a file each")
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
	f.StringVar(&cfg.TLSCertFile, "tlsCertFile", "", "certificate of the secure port, instead of one that the control plane issues to itself")
	f.StringVar(&cfg.TLSKeyFile, "tlsKeyFile", "", "key of --tlsCertFile")
	f.StringVar(&cfg.CACertFile, "caCertFile", "", "further roots that client certificates are verified with")
	f.StringVar(&httpsAddr, "httpsAddr", httpsAddr, "accepted for compatibility: webhooks need the Kubernetes API, which this release does not read")
	f.StringVar(&networks, "networksConfig", "", "not supported: name networks by the label topology.istio.io/network")
	f.BoolVar(&cfg.Profile, "profile", cfg.Profile, "serve profiles under /debug/pprof/")
	f.StringSliceVar(&registries, "registries", []string{"Kubernetes"}, "accepted for compatibility; the source is --configDir")
	f.StringVar(&logLevel, "log_output_level", "default:info", "log levels: level, or scope:level, comma-separated")
	f.BoolVar(&logJSON, "log_as_json", false, "log JSON objects")
	return cmd
}

// prefixes replaces the field by a list of blocks.
func prefixes(field *[]netip.Prefix) func(string) error {
	return func(s string) error {
		var out []netip.Prefix
		for part := range strings.SplitSeq(s, ",") {
			p, err := netip.ParsePrefix(strings.TrimSpace(part))
			if err != nil {
				return err
			}
			out = append(out, p.Masked())
		}
		*field = out
		return nil
	}
}

// fromEnvironment is the one table of environment variables. Flags count before them.
func fromEnvironment(cfg *app.Config) error {
	text := func(field *string) func(string) error {
		return func(s string) error { *field = s; return nil }
	}
	list := func(field *[]string) func(string) error {
		return func(s string) error { *field = strings.Split(s, ","); return nil }
	}
	duration := func(field *time.Duration) func(string) error {
		return func(s string) (err error) { *field, err = time.ParseDuration(s); return err }
	}
	var problems []error
	for _, v := range []struct {
		name string
		set  func(string) error
	}{
		{"CLUSTER_ID", text(&cfg.ClusterID)},
		{"POD_NAME", text(&cfg.PodName)},
		{"POD_NAMESPACE", text(&cfg.Namespace)},
		{"REVISION", text(&cfg.Revision)},
		{"CA_TRUSTED_NODE_ACCOUNTS", list(&cfg.TrustedNodeAccounts)},
		{"ISTIOD_CUSTOM_HOST", list(&cfg.ServerNames)},
		{"TOKEN_AUDIENCES", list(&cfg.TokenAudiences)},
		{"DEFAULT_WORKLOAD_CERT_TTL", duration(&cfg.DefaultCertTTL)},
		{"MAX_WORKLOAD_CERT_TTL", duration(&cfg.MaxCertTTL)},
		{"BLOCKED_CIDRS_IN_JWKS_URIS", prefixes(&cfg.BlockedKeySources)},
	} {
		if s := os.Getenv(v.name); s != "" {
			if err := v.set(s); err != nil {
				problems = append(problems, fmt.Errorf("environment variable %s: %w", v.name, err))
			}
		}
	}
	return errors.Join(problems...)
}
