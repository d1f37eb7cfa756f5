package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/isthmus-mesh/isthmus/pilot/app"
	"github.com/isthmus-mesh/isthmus/pkg/cgroup"
	"github.com/isthmus-mesh/isthmus/pkg/kube/cluster"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// options are flags that are not fields of the configuration.
type options struct {
	logLevel   string
	logJSON    bool
	registries []string
	networks   string
	kubeconfig string
	qps        float32
	burst      int

	controlAddress string
	controlPort    int
}

func discovery(build telemetry.Build) *cobra.Command {
	cfg := app.Default()
	cfg.Build = build
	environment := fromEnvironment(&cfg)
	var o options
	cmd := &cobra.Command{
		Use:   "discovery",
		Short: "Serve xDS and certificates",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if environment != nil {
				return environment
			}
			log, levels := telemetry.NewLogger(os.Stdout, telemetry.Options{JSON: o.logJSON, Level: slog.LevelInfo})
			if err := levels.Set(strings.TrimPrefix(o.logLevel, "default:")); err != nil {
				return fmt.Errorf("--log_output_level: %w", err)
			}
			cfg.Log, cfg.Levels = log, levels
			cfg.ControlAddr = net.JoinHostPort(o.controlAddress, strconv.Itoa(o.controlPort))
			klog.SetSlogLogger(telemetry.Scoped(log, "klog"))
			if _, err := cgroup.ApplyMemoryLimit(os.DirFS("/")); err != nil {
				log.Warn("the memory limit of this process is not known", "error", err)
			}
			if err := o.apply(&cfg); err != nil {
				return err
			}
			restore := collectRarely()
			cfg.Started = func(app.Addresses) { restore() }
			return app.Run(cmd.Context(), cfg)
		},
	}
	o.register(cmd.Flags())
	register(cmd.Flags(), &cfg)
	return cmd
}

func register(f *pflag.FlagSet, cfg *app.Config) {
	f.StringVar(&cfg.HTTPAddr, "httpAddr", cfg.HTTPAddr, "address of readiness and debug endpoints")
	f.StringVar(&cfg.HTTPSAddr, "httpsAddr", cfg.HTTPSAddr, "address of webhooks")
	f.StringVar(&cfg.GRPCAddr, "grpcAddr", cfg.GRPCAddr, "address of xDS in plaintext")
	f.StringVar(&cfg.SecureGRPCAddr, "secureGRPCAddr", cfg.SecureGRPCAddr, "address of xDS and certificates over TLS")
	f.StringVar(&cfg.MonitoringAddr, "monitoringAddr", cfg.MonitoringAddr, "address of metrics, version and debug endpoints")
	f.StringVar(&cfg.ConfigDir, "configDir", "", "directory of manifests to serve, watched for changes, instead of the objects of an API server")
	f.StringVar(&cfg.StatusDir, "statusDir", "", "directory to write the status of each object to, a file each")
	f.StringVar(&cfg.MeshConfigFile, "meshConfig", "", "file of the mesh configuration, watched for changes; without it, the ConfigMap istio or istio-<revision>")
	f.StringVar(&cfg.Domain, "domain", cfg.Domain, "DNS suffix of Kubernetes Services")
	f.StringVar(&cfg.ClusterID, "clusterID", cfg.ClusterID, "name of the cluster")
	f.StringVar(&cfg.Network, "network", cfg.Network, "network of the cluster")
	f.StringVarP(&cfg.Namespace, "namespace", "n", cfg.Namespace, "namespace of the control plane")
	f.StringVar(&cfg.Revision, "revision", cfg.Revision, "revision of the control plane")
	f.DurationVar(&cfg.MaxConnectionAge, "keepaliveMaxServerConnectionAge", cfg.MaxConnectionAge, "age at which xDS clients are told to connect anew")
	f.StringVar(&cfg.CADir, "caDir", cfg.CADir, "directory of the certificate authority's key material; without it, the Secrets cacerts and istio-ca-secret")
	f.StringVar(&cfg.JWKSFile, "jwksFile", cfg.JWKSFile, "file of the keys that ServiceAccount tokens are signed with; an API server is asked about tokens")
	f.StringVar(&cfg.JWTIssuer, "jwtIssuer", cfg.JWTIssuer, "issuer of ServiceAccount tokens")
	f.StringVar(&cfg.RootCertOut, "rootCertOut", cfg.RootCertOut, "file to write the root certificates to")
	f.StringVar(&cfg.TLSCertFile, "tlsCertFile", "", "certificate of the secure port, instead of one that the control plane issues to itself")
	f.StringVar(&cfg.TLSKeyFile, "tlsKeyFile", "", "key of --tlsCertFile")
	f.StringVar(&cfg.CACertFile, "caCertFile", "", "further roots that client certificates are verified with")
	f.BoolVar(&cfg.Profile, "profile", cfg.Profile, "serve profiles under /debug/pprof/")
}

func (o *options) register(f *pflag.FlagSet) {
	f.StringVar(&o.networks, "networksConfig", "", "not supported: networks are in the mesh configuration's ConfigMap, under meshNetworks")
	f.StringSliceVar(&o.registries, "registries", []string{registryKubernetes}, "where objects come from: Kubernetes")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server; without it, as a pod does")
	f.Float32Var(&o.qps, "kubernetesApiQPS", 0, "requests that are made to the API server per second (default 80)")
	f.IntVar(&o.burst, "kubernetesApiBurst", 0, "requests that are made to the API server at once (default 160)")
	f.StringVar(&o.logLevel, "log_output_level", "default:info", "log levels: level, or scope:level, comma-separated")
	f.StringVar(&o.controlAddress, "ctrlz_address", "localhost", "address on which the log levels are shown and set; callers are not authenticated")
	f.IntVar(&o.controlPort, "ctrlz_port", 9876, "port of --ctrlz_address")
	f.BoolVar(&o.logJSON, "log_as_json", false, "log JSON objects")
}

const registryKubernetes = "Kubernetes"

// apply checks what is not a field of the configuration, and finds the API server.
func (o *options) apply(cfg *app.Config) error {
	if o.networks != "" {
		return errors.New("--networksConfig is not supported: put the networks under meshNetworks in the mesh configuration's ConfigMap, or name them by the label topology.istio.io/network")
	}
	for _, r := range o.registries {
		if r != registryKubernetes {
			return fmt.Errorf("--registries: %q is not supported: objects come from Kubernetes or, with --configDir, from files", r)
		}
	}
	if cfg.ConfigDir != "" {
		if o.kubeconfig != "" {
			return errors.New("--configDir and --kubeconfig exclude each other")
		}
		return nil
	}
	if len(o.registries) == 0 {
		return errors.New("--registries is empty and there is no --configDir: there would be nothing to serve")
	}
	config, err := cluster.RESTConfig(o.kubeconfig, func(c *rest.Config) {
		if o.qps > 0 {
			c.QPS = o.qps
		}
		if o.burst > 0 {
			c.Burst = o.burst
		}
		c.UserAgent = "pilot-discovery/" + cfg.Build.Version
	})
	if err != nil {
		return fmt.Errorf("%w (or serve a directory of manifests with --configDir)", err)
	}
	cfg.Kubernetes = config
	return nil
}
