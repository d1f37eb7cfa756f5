// Command ztunnel is the node proxy.
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
	"github.com/isthmus-mesh/isthmus/ztunnel/app"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/config"
)

// Set by the linker.
var version, revision string

const usage = `ztunnel: the mesh's proxy of one node

  ztunnel proxy ztunnel   serve the pods of this node; configured by environment variables
  ztunnel version         print the version
  ztunnel help            print this
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
	switch strings.Join(args, " ") {
	case "version", "--version", "-V":
		fmt.Println(build)
		return nil
	case "help", "--help", "-h":
		fmt.Print(usage)
		return nil
	case "", "proxy ztunnel", "proxy":
	default:
		return fmt.Errorf("unknown command %q\n\n%s", strings.Join(args, " "), usage)
	}
	cfg, err := config.Load(os.Environ())
	if err != nil {
		return err
	}
	cfg.Build = build
	cfg.Log, cfg.Levels = telemetry.NewLogger(os.Stdout, telemetry.Options{JSON: cfg.LogJSON, Level: cfg.Level})
	if err := cfg.Levels.Set(cfg.LogLevel); err != nil {
		return fmt.Errorf("LOG_LEVEL: %w", err)
	}
	limit, err := cgroup.ApplyMemoryLimit(os.DirFS("/"))
	if err != nil {
		cfg.Log.Warn("the memory limit is unknown", "error", err)
	}
	cfg.Log.Info("starting", "version", build.Version, "node", cfg.NodeName, "threads", cfg.Threads, "memory_limit", limit)
	return app.Run(ctx, cfg)
}
