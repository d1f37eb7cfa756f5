// Command demo brings the mesh up with Bookinfo on this machine, and measures what it promises.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/sandbox"
	"github.com/isthmus-mesh/isthmus/sandbox/demo/scenario"
)

// limit bounds the whole run.
const limit = 20 * time.Minute

func main() {
	if handled, exit := sandbox.Main(os.Args); handled {
		os.Exit(exit)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// errChecks is how a run ends whose report says what is wrong.
var errChecks = errors.New("checks failed")

func run(ctx context.Context) error {
	bin := flag.String("bin", "bin", "directory of the binaries")
	samples := flag.String("samples", "samples", "directory of the sample manifests")
	keep := flag.Bool("keep", false, "leave the sandbox running")
	state := flag.String("state-dir", "/run/isthmus/sandbox-demo", "directory of the sandbox's state")
	l7 := flag.Bool("l7", true, "show the ingress gateway and waypoints too")
	publish := flag.String("publish", "127.0.0.1:9080", "address on this machine for the product page, with -keep")
	flag.Parse()
	bins, err := filepath.Abs(*bin)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	options := sandbox.Options{Name: "demo", StateDir: *state, Nodes: 2, BinDir: bins, Profile: sandbox.ProfileAmbient, Log: log}
	page := "default/productpage:9080"
	if *l7 {
		options.Profile, page = sandbox.ProfileDemo, "istio-system/istio-ingressgateway:80"
	}
	if *keep {
		options.Publish = []string{*publish + "=" + page}
	}
	report := scenario.NewReport(os.Stdout)
	fmt.Println("starting a sandbox of two nodes with the mesh, and Bookinfo in it …")
	begin := time.Now()
	box, err := sandbox.Up(ctx, options)
	if err != nil {
		return fmt.Errorf("start the sandbox: %w", err)
	}
	if !*keep {
		defer func() {
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			if err := sandbox.Down(end, *state); err != nil {
				fmt.Fprintln(os.Stderr, "demo: take the sandbox down:", err)
			}
		}()
	}
	bed := &scenario.Bed{Sandbox: box, Report: report, Samples: *samples, L7: *l7}
	if err := bed.Setup(ctx); err != nil {
		return fmt.Errorf("bring Bookinfo up: %w", err)
	}
	fmt.Printf("up after %.1f s\n", time.Since(begin).Seconds())
	bed.All(ctx)
	passed := report.Summary()
	if *keep {
		lookAround(*publish, *state)
	}
	if !passed {
		return errChecks
	}
	return nil
}

func lookAround(publish, state string) {
	fmt.Printf(`
The sandbox is still running. Look around:
  browser:                http://%[1]s/productpage
  bin/istioctl sandbox --state-dir %[2]s status
  bin/istioctl sandbox --state-dir %[2]s exec deploy/curl -- curl -s productpage:9080/productpage
  bin/istioctl sandbox --state-dir %[2]s logs deploy/waypoint
  bin/istioctl sandbox --state-dir %[2]s get httproute -o yaml
  bin/istioctl sandbox --state-dir %[2]s logs -n istio-system daemonset/ztunnel
  bin/istioctl sandbox --state-dir %[2]s down
`, publish, state)
}
