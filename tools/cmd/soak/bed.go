package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/sandbox"
)

const (
	nodeCount     = 2
	meshNamespace = "istio-system"
	namespace     = "soak"
	// patience is how long anything may take before it counts as lost, on a machine that does much else.
	patience = 30 * time.Second
	// settling bounds what is waited for before and after the load.
	settling = 3 * time.Minute
	// look is the time between two looks at something that is waited for.
	look = 100 * time.Millisecond
	// filesPerConnection are the descriptors that a process must be allowed for each open connection, and otherFiles the others. Two are ours;
	// a node proxy counts with three, and lets one of the two workloads that it has have no more than a third of them.
	filesPerConnection, otherFiles = 5, 2000
)

func nodes() [nodeCount]string { return [2]string{"node-1", "node-2"} }

// bed is a sandbox of two nodes with the mesh, whose control plane is reached by a relay of ours.
type bed struct {
	options options
	name    string
	log     *slog.Logger
	box     *sandbox.Client
	relay   *relay
	pods    []*guest
	// listeners of applications.
	listeners []net.Listener
}

func newBed(ctx context.Context, o options, part string, log *slog.Logger) (b *bed, err error) {
	b = &bed{options: o, name: part, log: log}
	if err := allowFiles(uint64(o.connections*filesPerConnection + otherFiles)); err != nil {
		return nil, err
	}
	b.box, err = sandbox.Up(ctx, sandbox.Options{Name: o.name + "-" + part, Nodes: nodeCount, BinDir: o.bin, Log: log})
	if err != nil {
		return nil, err
	}
	if err := b.prepare(ctx); err != nil {
		return nil, errors.Join(err, b.close(ctx))
	}
	return b, nil
}

// allowFiles has this process, and the programs that it starts, be allowed so many open files at least.
func allowFiles(n uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	want := syscall.Rlimit{Cur: max(n, limit.Max), Max: max(n, limit.Max)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &want); err != nil {
		return fmt.Errorf("so many connections need %d open files, and %d are allowed: raise that (ulimit -n), or want fewer connections: %w", n, limit.Max, err)
	}
	return nil
}

// prepare puts the relay before the control plane, and has the node proxies live as the soak wants it.
func (b *bed) prepare(ctx context.Context) (err error) {
	text := fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {istio.io/dataplane-mode: ambient}}\n", namespace)
	if err := b.apply(ctx, text); err != nil {
		return err
	}
	host, err := b.pod(ctx, podOf{namespace: meshNamespace, name: "relay", node: nodes()[0]})
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	if b.relay, err = newRelay(ctx, b, host); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	if err := b.box.Patch(ctx, "Service", meshNamespace, "istiod", map[string]any{"spec": map[string]any{"selector": map[string]any{"app": host.name}}}); err != nil {
		return fmt.Errorf("lead to the relay: %w", err)
	}
	return b.tuneZtunnel(ctx)
}

// tuneZtunnel replaces the node proxies by ones with short-lived certificates, and with tunnels that end soon after the last connection,
// so that one can see what is left.
func (b *bed) tuneZtunnel(ctx context.Context) error {
	return b.replacing(ctx, meshNamespace, "ztunnel-", func() error {
		return b.box.SetEnv(ctx, "DaemonSet", meshNamespace, "ztunnel", map[string]string{
			"SECRET_TTL": b.options.ttl.String(), "POOL_UNUSED_RELEASE_TIMEOUT": "3s", "LOG_LEVEL": "warn",
		})
	})
}

// replacing returns when change has led to as many other pods, ready, and those from before are gone.
func (b *bed) replacing(ctx context.Context, namespace, prefix string, change func() error) error {
	before, err := b.status(ctx, namespace, prefix)
	if err != nil {
		return err
	}
	old := map[string]bool{}
	for _, p := range before {
		old[p.Name] = true
	}
	if err := change(); err != nil {
		return err
	}
	return b.eventually(ctx, "pods "+prefix+"* are replaced", func() error {
		now, err := b.status(ctx, namespace, prefix)
		if err != nil {
			return err
		}
		for _, p := range now {
			if old[p.Name] || !p.Ready {
				return fmt.Errorf("%s is there, ready: %v", p.Name, p.Ready)
			}
		}
		if len(now) != len(before) {
			return fmt.Errorf("%d pods, not %d", len(now), len(before))
		}
		return nil
	})
}

// status tells of the pods whose names begin so.
func (b *bed) status(ctx context.Context, namespace, prefix string) ([]sandbox.PodStatus, error) {
	all, err := b.box.Status(ctx)
	return slices.DeleteFunc(all.Pods, func(p sandbox.PodStatus) bool { return p.Namespace != namespace || !strings.HasPrefix(p.Name, prefix) }), err
}

func (b *bed) apply(ctx context.Context, text string) error {
	_, err := b.box.ApplyTo(ctx, namespace, "soak.yaml", []byte(text))
	return err
}

// eventually waits until check returns nil.
func (b *bed) eventually(ctx context.Context, what string, check func() error) error {
	return within(ctx, settling, what, check)
}

// within calls check until it returns nil, or else returns its last error after the limit.
func within(ctx context.Context, limit time.Duration, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		if !pause(ctx, look) {
			return fmt.Errorf("not in %s: %s: %w", limit, what, err)
		}
	}
}

// pause returns false when ctx ends before the time is over.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// close takes everything away.
func (b *bed) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settling)
	defer cancel()
	for _, l := range b.listeners {
		l.Close()
	}
	for _, p := range b.pods {
		p.leave()
	}
	if b.relay != nil {
		b.relay.close()
	}
	return sandbox.Down(ctx, b.box.StateDir())
}
