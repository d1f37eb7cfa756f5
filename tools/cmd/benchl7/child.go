package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/waypoint/app"
)

// childArg as the first argument makes this program our engine.
const childArg = "child"

// setup is what the child is told first, in one line on its standard input.
type setup struct {
	Kind, Pod string
	Plane     string // address of the control plane
	Dir       string // for files of its own
	Profile   string // where to write a CPU profile, and beside it what was allocated; "" is nowhere
}

// runChild runs the engine as the waypoint's command does, until its standard input ends, and answers a line for each line.
func runChild(in io.Reader, out, log io.Writer) error {
	lines := bufio.NewScanner(in)
	if !lines.Scan() {
		return errors.New("no setup on standard input")
	}
	var s setup
	if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	cfg, err := s.engine(log)
	if err != nil {
		return err
	}
	if s.Profile != "" {
		f, err := os.Create(s.Profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
		defer func() {
			if err := writeAllocations(s.Profile + ".allocs"); err != nil {
				fmt.Fprintln(log, err)
			}
		}()
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- app.Run(ctx, cfg) }()
	for lines.Scan() {
		select {
		case err := <-ended:
			return fmt.Errorf("the engine has ended: %w", err)
		default:
		}
		switch lines.Text() {
		case "idle":
			fmt.Fprintln(out, time.Duration(read("/cpu/classes/gc/mark/idle:cpu-seconds").Float64()*float64(time.Second)).Nanoseconds())
		case "allocations":
			fmt.Fprintln(out, read("/gc/heap/allocs:objects").Uint64())
		case "collect":
			for range 3 { // pools are emptied in the second round, what they held goes in the third
				debug.FreeOSMemory()
			}
			fmt.Fprintln(out, 0)
		}
	}
	return lines.Err()
}

func read(name string) metrics.Value {
	sample := []metrics.Sample{{Name: name}}
	metrics.Read(sample)
	return sample[0].Value
}

func (s setup) engine(out io.Writer) (app.Config, error) {
	token := filepath.Join(s.Dir, s.Pod+".token")
	if err := os.WriteFile(token, []byte("token"), 0o600); err != nil {
		return app.Config{}, err
	}
	upstream := app.Upstream{URL: "http://" + s.Plane}
	log, levels := telemetry.NewLogger(out, telemetry.Options{Level: slog.LevelWarn})
	return app.Config{
		Kind: app.Kind(s.Kind), Domain: namespace + ".svc.cluster.local", PodName: s.Pod, PodNamespace: namespace, ServiceAccount: "proxy",
		ClusterID: "Kubernetes", TrustDomain: trustDomain, InstanceIPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
		ProxyConfig: &meshconfig.ProxyConfig{}, XDS: upstream, CA: upstream, TokenFile: token, SecretTTL: 24 * time.Hour,
		AdminAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0", ReadinessAddr: "127.0.0.1:0", EngineMetricsAddr: "127.0.0.1:0",
		Build: telemetry.NewBuild("bench", "bench"), Log: log, Levels: levels,
	}, nil
}

func writeAllocations(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return pprof.Lookup("allocs").WriteTo(f, 0)
}
