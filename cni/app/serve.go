package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/isthmus-mesh/isthmus/cni/internal/pluginlog"
)

// serve opens the plugin's sockets and the HTTP ports.
func (d *daemon) serve(ctx context.Context, g *errgroup.Group) error {
	if err := os.MkdirAll(filepath.Dir(d.cfg.PluginSocket), 0o755); err != nil {
		return fmt.Errorf("directory of the plugin's socket: %w", err)
	}
	for _, socket := range []string{d.cfg.PluginSocket, d.cfg.logSocket()} {
		if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("replace the plugin's socket: %w", err)
		}
	}
	health := http.NewServeMux()
	health.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	health.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !d.ready.Load() || !d.installed.Load() {
			http.Error(w, fmt.Sprintf("not ready: objects known %t, plugin installed %t", d.ready.Load(), d.installed.Load()), http.StatusServiceUnavailable)
		}
	})
	health.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(d.agent.Statuses()) // the asker is gone
	})
	monitoring := http.NewServeMux()
	monitoring.Handle("GET /metrics", promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{}))
	for _, s := range []struct {
		network, addr string
		handler       http.Handler
	}{
		{"unix", d.cfg.PluginSocket, d.agent.Handler()},
		{"unix", d.cfg.logSocket(), pluginlog.Handler(d.cfg.Log)},
		{"tcp", d.cfg.HealthAddr, health},
		{"tcp", d.cfg.MonitoringAddr, monitoring},
	} {
		listener, err := (&net.ListenConfig{}).Listen(ctx, s.network, s.addr)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", s.addr, err)
		}
		if unix, ok := listener.(*net.UnixListener); ok {
			unix.SetUnlinkOnClose(false) // the next agent's socket may be there by then
			if err := os.Chmod(s.addr, 0o600); err != nil {
				listener.Close()
				return fmt.Errorf("mode of %s: %w", s.addr, err)
			}
		}
		server := &http.Server{Handler: s.handler, ReadHeaderTimeout: 10 * time.Second}
		g.Go(func() error {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve on %s: %w", s.addr, err)
			}
			return nil
		})
		g.Go(func() error { <-ctx.Done(); return server.Close() })
	}
	return nil
}
