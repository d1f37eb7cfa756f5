// Command install-cni is the node agent: it installs the CNI plugin and enrols pods.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/isthmus-mesh/isthmus/cni/app"
	"github.com/isthmus-mesh/isthmus/pkg/cgroup"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// Set by the linker.
var version, revision string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	s := settings{Config: app.Default(), level: "info"}
	s.Build = telemetry.NewBuild(version, revision)
	if len(args) > 0 && args[0] == "version" {
		fmt.Println(s.Build)
		return nil
	}
	if err := read(&s, args, os.Getenv); err != nil {
		return err
	}
	log, levels := telemetry.NewLogger(os.Stdout, telemetry.Options{JSON: s.json, Level: slog.LevelInfo})
	if err := levels.Set(s.level); err != nil {
		return fmt.Errorf("--log-level: %w", err)
	}
	s.Log = log
	if _, err := cgroup.ApplyMemoryLimit(os.DirFS("/")); err != nil {
		log.Info("the memory limit of this process is not known", "error", err)
	}
	return app.Run(ctx, s.Config)
}
