// Command benchproxy serves a static configuration with the engine, for measurements: it reads Envoy's bootstrap, so that both
// can be given the same one. It prints "ready" and ends with its standard input.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/pprof"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"                       // named by the configuration
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"                     // likewise
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3" // likewise
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"                          // likewise
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/telemetry"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

func main() {
	config := flag.String("config", "", "Envoy's bootstrap, as JSON, of which listeners and clusters are read")
	profile := flag.String("profile", "", "write a CPU profile to this file")
	flag.Parse()
	if err := run(*config, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "benchproxy:", err)
		os.Exit(1)
	}
}

func run(config, profile string) error {
	cfg, err := load(config)
	if err != nil {
		return err
	}
	metrics, err := telemetry.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		return err
	}
	server := proxy.New(proxy.Deps{
		Observer: telemetry.NewObserver(metrics, telemetry.Self{Gateway: true, Workload: "bench"}, nil),
		Log:      slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	defer server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := server.SetConfig(ctx, cfg); err != nil {
		return err
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// load compiles the static resources of a bootstrap.
func load(path string) (*l7.Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var boot struct {
		Static struct {
			Listeners, Clusters []json.RawMessage
		} `json:"static_resources"`
	}
	if err := json.Unmarshal(text, &boot); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	u := l7.Update{Listeners: map[string]*l7.Listener{}, Clusters: map[string]*l7.Cluster{}}
	var failed []error
	for _, raw := range boot.Static.Listeners {
		l, err := compile(raw, &listenerv3.Listener{}, l7.CompileListener)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		u.Listeners[l.Name] = l
	}
	for _, raw := range boot.Static.Clusters {
		c, err := compile(raw, &clusterv3.Cluster{}, l7.CompileCluster)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		u.Clusters[c.Name] = c
	}
	return l7.NewConfig().With(u), errors.Join(failed...)
}

func compile[P proto.Message, T any](raw []byte, p P, f func(P) (T, error)) (T, error) {
	var zero T
	if err := protojson.Unmarshal(raw, p); err != nil {
		return zero, err
	}
	return f(p)
}
