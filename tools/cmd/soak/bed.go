package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/sandbox"
)

const (
	meshNamespace = "istio-system"
	namespace     = "soak"
	// patience is how long anything may take before it counts as lost, on a machine that does much else.
	patience = 30 * time.Second
	// settling bounds what is waited for before and after the load.
	settling = 3 * time.Minute
	// look is the time between two looks at something that is waited for.
	look = 100 * time.Millisecond
	// leastNodes there are, and more for more open connections than their proxies take.
	leastNodes = 2
	// filesPerNode are the descriptors that a node's proxy must be allowed for each open connection of the client that the node has, and of
	// its server: it counts with three for each, and lets one of two workloads have no more than a third of all; and a little more.
	filesPerNode = 10
	// otherFiles are those of a process for anything else than open connections.
	otherFiles = 2000
)

// bed is a sandbox of a few nodes with the mesh, whose control plane is reached by a relay of ours.
type bed struct {
	options options
	name    string
	log     *slog.Logger
	box     *sandbox.Client
	nodes   []string
	relay   *relay
	pods    []*guest
	// answers in pods; may be nil.
	answers *echo
}

// newBed returns one in which so many connections can be open.
func newBed(ctx context.Context, o options, part string, connections int, log *slog.Logger) (b *bed, err error) {
	b = &bed{options: o, name: part, log: log}
	files, err := allowFiles(uint64(connections*filesPerNode/leastNodes + otherFiles))
	if err != nil {
		return nil, err
	}
	if connections+otherFiles > files {
		return nil, fmt.Errorf("so many connections need %d open files, and %d are allowed: raise that (ulimit -n), or want fewer connections", connections+otherFiles, files)
	}
	for i := range max(leastNodes, (connections*filesPerNode+files-1)/files) {
		b.nodes = append(b.nodes, fmt.Sprintf("node-%d", i+1))
	}
	b.box, err = sandbox.Up(ctx, sandbox.Options{Name: o.name + "-" + part, Nodes: len(b.nodes), BinDir: o.bin, Log: log})
	if err != nil {
		return nil, err
	}
	if err := b.prepare(ctx); err != nil {
		return nil, errors.Join(err, b.close(ctx))
	}
	return b, nil
}

// allowFiles has this process, and the programs that it starts, be allowed so many open files, or as many as they may be, and returns how
// many that are.
func allowFiles(n uint64) (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	allowed := max(n, limit.Max)
	err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: allowed, Max: allowed})
	if errors.Is(err, syscall.EPERM) {
		allowed = limit.Max
		err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: allowed, Max: allowed})
	}
	if err != nil {
		return 0, fmt.Errorf("raise the limit of open files: %w", err)
	}
	return int(min(allowed, math.MaxInt32)), nil
}

// prepare puts the relay before the control plane, and has the node proxies live as the soak wants it.
func (b *bed) prepare(ctx context.Context) (err error) {
	text := fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {istio.io/dataplane-mode: ambient}}\n", namespace)
	if err := b.apply(ctx, text); err != nil {
		return err
	}
	host, err := b.pod(ctx, podOf{namespace: meshNamespace, name: "relay", node: b.nodes[0]})
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
	var failed error
	if b.answers != nil {
		failed = b.answers.end()
	}
	for _, p := range b.pods {
		p.leave()
	}
	if b.relay != nil {
		b.relay.close()
	}
	return errors.Join(failed, sandbox.Down(ctx, b.box.StateDir()))
}
