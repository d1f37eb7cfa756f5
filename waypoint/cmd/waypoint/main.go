// Command waypoint is the L7 proxy of a namespace or service, and the ingress and egress gateway.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/isthmus-mesh/isthmus/pkg/cgroup"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/waypoint/app"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/config"
)

// Set by the linker.
var version, revision string

const usage = `waypoint: the mesh's L7 proxy

  waypoint proxy waypoint|router [flags]   serve as a waypoint, or as a gateway
  waypoint agent waypoint|router [flags]   the same, with a real Envoy as the engine (--envoy PATH)
  waypoint request METHOD PATH             ask the admin port of the proxy in this pod: request GET /config_dump
  waypoint wait [flags]                    wait until the proxy in this pod is ready
  waypoint version                         print the version
  waypoint help                            print this

Flags and environment variables are those of Istio's proxy image.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	build := telemetry.NewBuild(version, revision)
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	switch command {
	case "version", "--version":
		fmt.Println(build)
		return nil
	case "", "help", "--help", "-h":
		fmt.Print(usage + "\n" + config.Usage())
		return nil
	case "request":
		return request(ctx, args[1:], os.Stdout)
	case "wait":
		return wait(ctx, args[1:])
	case "proxy", "agent":
	default:
		return fmt.Errorf("unknown command %q\n\n%s", strings.Join(args, " "), usage)
	}
	kind, rest, err := kindOf(args[1:])
	if err != nil {
		return err
	}
	if command == "agent" {
		rest = append([]string{"--engine=envoy"}, rest...)
	}
	cfg, err := config.Load(kind, rest, config.Process())
	if err != nil {
		return err
	}
	cfg.Build = build
	cfg.Log, cfg.Levels = telemetry.NewLogger(os.Stdout, telemetry.Options{JSON: cfg.LogJSON, Level: cfg.Level})
	if err := cfg.Levels.Set(cfg.LogLevel); err != nil {
		return fmt.Errorf("--log_output_level: %w", err)
	}
	limit, err := cgroup.ApplyMemoryLimit(os.DirFS("/"))
	if err != nil {
		cfg.Log.Warn("the memory limit is unknown", "error", err)
	}
	cfg.Log.Info("starting", "version", build.Version, "role", kind, "pod", cfg.PodName, "threads", cfg.Threads, "memory_limit", limit)
	return app.Run(ctx, cfg)
}

// kindOf reads the role, which precedes the flags.
func kindOf(args []string) (app.Kind, []string, error) {
	if len(args) > 0 {
		switch kind := app.Kind(args[0]); kind {
		case app.Waypoint, app.Router:
			return kind, args[1:], nil
		}
		if !strings.HasPrefix(args[0], "-") {
			return "", nil, fmt.Errorf("unknown role %q: use waypoint or router", args[0])
		}
	}
	return "", nil, fmt.Errorf("the role is missing: `waypoint proxy waypoint` or `waypoint proxy router`")
}
