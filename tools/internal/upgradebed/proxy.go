package upgradebed

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/ztunnel/app"
)

// ChildArg as the first argument makes a program that uses this package call RunChild.
const ChildArg = "node-proxy"

const (
	// readyTime bounds the start of a proxy, on a machine that does much else.
	readyTime = 60 * time.Second
	// drainTime is for what is not handed over. The bed's connections outlive it: they are dropped then, and counted. A hand-over must be done by then, too.
	drainTime = 2 * time.Minute
	// sleepAfter is short, so that what is idle sleeps when it is handed over.
	sleepAfter = 100 * time.Millisecond
)

// setup is what a child reads from its standard input.
type setup struct {
	Node, Plane, Token, Socket string
	Versions                   [2]uint64
	Drain                      time.Duration
	Transport                  hbone.Transport

	program string
}

// RunChild is a node proxy, until SIGTERM. It prints the address of its readiness first; its log goes to log.
func RunChild(in io.Reader, out, log io.Writer) error {
	var s setup
	if err := json.NewDecoder(in).Decode(&s); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	upstream := app.Upstream{URL: "http://" + s.Plane}
	cfg := app.Config{
		Enabled: true, NodeName: s.Node, ClusterID: "Kubernetes", ClusterDomain: "cluster.local", TrustDomain: "cluster.local",
		PodName: "ztunnel-" + s.Node, PodNamespace: "istio-system", InstanceIP: netip.MustParseAddr("1.1.1.1"), Metadata: map[string]any{},
		XDS: upstream, CA: upstream, TokenFile: s.Token, SecretTTL: time.Hour, ZDSSocket: s.Socket, PacketMark: proxyMark,
		KeepaliveEnabled: true, KeepaliveTime: 180 * time.Second, KeepaliveInterval: 180 * time.Second, KeepaliveRetries: 9,
		PoolMaxStreams: 100, PoolIdleTimeout: 5 * time.Minute, Transport: s.Transport, Handover: true, HandoverVersions: s.Versions,
		DrainTimeout: cmp.Or(s.Drain, drainTime), CertificatePatience: 3 * time.Second, SleepAfter: sleepAfter, AdminAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0", ReadinessAddr: "127.0.0.1:0",
	}
	cfg.Log, cfg.Levels = telemetry.NewLogger(log, telemetry.Options{Level: slog.LevelWarn})
	if err := cfg.Levels.Set("warn,handover=info"); err != nil {
		return err
	}
	cfg.Started = func(a app.Addresses) { fmt.Fprintln(out, a.Readiness) }
	return app.Run(ctx, cfg)
}

// proxy is a running child.
type proxy struct {
	cmd *exec.Cmd
	log *os.File
}

// startProxy returns when the proxy is ready. What it logs goes to a file.
func startProxy(ctx context.Context, s setup, log string) (*proxy, error) {
	program, err := s.program, error(nil)
	if program == "" {
		if program, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	input, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	p := &proxy{cmd: exec.CommandContext(ctx, program, ChildArg)}
	p.cmd.Stdin = strings.NewReader(string(input))
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if p.log, err = os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		p.log.Close()
		return nil, fmt.Errorf("start a node proxy: %w", err)
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		err = ready(ctx, strings.TrimSpace(addr))
	}
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("a node proxy does not start: %w", err)
	}
	return p, nil
}

func ready(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/healthz/ready", http.NoBody)
		if err != nil {
			return err
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return errors.New("it is never ready")
		}
	}
}

// retire ends the proxy as a node does.
func (p *proxy) retire() error { return p.cmd.Process.Signal(syscall.SIGTERM) }

// gone waits for a proxy that is to end.
func (p *proxy) gone() error {
	err := p.cmd.Wait()
	p.log.Close()
	return err
}

func (p *proxy) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()
	p.log.Close()
}
