// Command install-cni is the node agent: it installs the CNI plugin and enrols pods.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/isthmus-mesh/isthmus/cni/app"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// Set by the linker.
var version, revision string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	cfg := app.Default()
	cfg.Build = telemetry.NewBuild(version, revision)
	if len(args) > 0 && args[0] == "version" {
		fmt.Println(cfg.Build)
		return nil
	}
	fromEnvironment(&cfg)
	exclude, level, asJSON := strings.Join(cfg.ExcludeNamespaces, ","), "info", false
	f := flag.NewFlagSet("install-cni", flag.ContinueOnError)
	f.StringVar(&cfg.Node, "node", cfg.Node, "name of this node (NODE_NAME)")
	f.StringVar(&cfg.ConfigDir, "config-dir", cfg.ConfigDir, "directory of manifests with the pods and namespaces, watched for changes")
	f.StringVar(&cfg.APISocket, "api-socket", cfg.APISocket, "Unix socket that takes annotations of pods")
	f.StringVar(&cfg.ZDSSocket, "zds-socket", cfg.ZDSSocket, "Unix socket for ztunnel")
	f.StringVar(&cfg.PluginSocket, "plugin-socket", cfg.PluginSocket, "Unix socket for the CNI plugin")
	f.StringVar(&cfg.PluginSource, "plugin-source", besideMe("istio-cni"), "the CNI plugin to install; empty installs none")
	f.StringVar(&cfg.BinDir, "cni-bin-dir", cfg.BinDir, "directory of CNI plugins")
	f.StringVar(&cfg.NetDir, "cni-net-dir", cfg.NetDir, "directory of network configurations")
	f.StringVar(&cfg.StateFile, "state-file", cfg.StateFile, "file that keeps the node's pods over a restart")
	f.StringVar(&exclude, "exclude-namespaces", exclude, "namespaces that are never enrolled")
	f.StringVar(&cfg.HealthAddr, "readiness-addr", cfg.HealthAddr, "address of /healthz, /readyz and /status")
	f.StringVar(&cfg.MonitoringAddr, "monitoring-addr", cfg.MonitoringAddr, "address of /metrics")
	f.BoolVar(&cfg.Redirect.DNS, "dns-capture", cfg.Redirect.DNS, "capture the DNS queries of pods (AMBIENT_DNS_CAPTURE)")
	f.BoolVar(&cfg.Redirect.IPv6, "ipv6", cfg.Redirect.IPv6, "capture IPv6 too (AMBIENT_IPV6)")
	f.BoolVar(&cfg.CleanUp, "cleanup-on-exit", false, "take the plugin and the node's rules away at the end")
	f.StringVar(&level, "log-level", level, "log levels: level, or scope:level, comma-separated")
	f.BoolVar(&asJSON, "log-as-json", false, "log JSON objects")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	cfg.ExcludeNamespaces = strings.Split(exclude, ",")
	log, levels := telemetry.NewLogger(os.Stdout, telemetry.Options{JSON: asJSON, Level: slog.LevelInfo})
	if err := levels.Set(level); err != nil {
		return fmt.Errorf("--log-level: %w", err)
	}
	cfg.Log = log
	return app.Run(ctx, cfg)
}

// besideMe is a file in the directory of this program.
func besideMe(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}

// fromEnvironment is the one table of environment variables. Flags count before them.
func fromEnvironment(cfg *app.Config) {
	for name, set := range map[string]func(string){
		"NODE_NAME":           func(s string) { cfg.Node = s },
		"K8S_NODE_NAME":       func(s string) { cfg.Node = s },
		"EXCLUDE_NAMESPACES":  func(s string) { cfg.ExcludeNamespaces = strings.Split(s, ",") },
		"AMBIENT_DNS_CAPTURE": func(s string) { cfg.Redirect.DNS = s == "true" },
		"AMBIENT_IPV6":        func(s string) { cfg.Redirect.IPv6 = s == "true" },
		"HOST_PROBE_SNAT_IP": func(s string) {
			if ip, err := netip.ParseAddr(s); err == nil {
				cfg.Redirect.ProbeSource = ip
			}
		},
		"HOST_PROBE_SNAT_IPV6": func(s string) {
			if ip, err := netip.ParseAddr(s); err == nil {
				cfg.Redirect.ProbeSourceIPv6 = ip
			}
		},
	} {
		if s := os.Getenv(name); s != "" {
			set(s)
		}
	}
}
