package upgradebed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Options of a run.
type Options struct {
	// Idle connections and Streams, which are streaming gRPC calls, are open while the proxies are replaced.
	Idle, Streams int
	// Rounds is how often each of the two proxies is replaced.
	Rounds int
	// Versions are the hand-over's versions that the instances understand, by turns; none is this build's.
	Versions [][2]uint64
	// Drain is how long an old instance lets connections go on that it could not hand over; zero is two minutes.
	Drain time.Duration
}

// Result of a run.
type Result struct {
	Dropped, Requests int
	// DroppedRequests are those of the dropped that were requests.
	DroppedRequests int
	// Longest is the longest time between two messages of a streaming call, of which there is one every ten milliseconds.
	Longest time.Duration
	// Leaving is the longest time that an old instance took to go.
	Leaving time.Duration
	// First is what was dropped first, or nil.
	First error
	// Log is what the proxies have logged.
	Log string
}

func nodeNames() [2]string { return [2]string{"node-a", "node-b"} }

// bed is two nodes.
type bed struct {
	o       Options
	dir     string
	plane   *plane
	pods    *pods
	agents  [2]*agent
	proxies [2]*proxy
	started int
}

// Run replaces the proxies of both nodes under load. It needs root.
func Run(ctx context.Context, o Options) (r Result, err error) {
	b := &bed{o: o}
	defer b.close()
	if err := b.prepare(ctx); err != nil {
		return r, err
	}
	apps, err := b.pods.startApps(ctx)
	if err != nil {
		return r, err
	}
	defer apps.close()
	l, err := startLoad(ctx, b.pods, o)
	if err != nil {
		return r, errors.Join(err, errors.New(b.log()))
	}
	defer l.close()
	for range max(o.Rounds, 1) {
		for i := range b.proxies {
			took, err := b.replace(ctx, i)
			if err != nil {
				return r, errors.Join(err, errors.New(b.log()))
			}
			r.Leaving = max(r.Leaving, took)
		}
	}
	l.finish()
	r.Dropped, r.Requests, r.DroppedRequests = int(l.dropped.Load()), int(l.requests.Load()), int(l.failed.Load())
	r.Longest, r.First, r.Log = time.Duration(l.longest.Load()), l.first, b.log()
	return r, nil
}

func (b *bed) prepare(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "upgrade-"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "token"), []byte("a-token\n"), 0o600); err != nil {
		return err
	}
	if b.plane, err = newPlane(); err != nil {
		return err
	}
	if b.pods, err = newPods(ctx); err != nil {
		return err
	}
	for i, name := range []string{"client", "server"} {
		if err := os.Mkdir(filepath.Join(b.dir, nodeNames()[i]), 0o700); err != nil {
			return err
		}
		if b.agents[i], err = newAgent(b.socket(i), name, b.pods.path(i)); err != nil {
			return err
		}
	}
	for i := range b.proxies {
		if b.proxies[i], err = b.start(ctx, i); err != nil {
			return errors.Join(err, errors.New(b.log()))
		}
	}
	return nil
}

// socket is in the directory that a node's instances share.
func (b *bed) socket(i int) string { return filepath.Join(b.dir, nodeNames()[i], "ztunnel.sock") }

func (b *bed) start(ctx context.Context, i int) (*proxy, error) {
	s := setup{Node: nodeNames()[i], Plane: b.plane.addr, Token: filepath.Join(b.dir, "token"), Socket: b.socket(i), Drain: b.o.Drain}
	if n := len(b.o.Versions); n > 0 {
		s.Versions = b.o.Versions[b.started%n]
	}
	b.started++
	return startProxy(ctx, s, filepath.Join(b.dir, "log"))
}

// replace starts a further instance on a node, then ends the first, and returns how long that took to leave.
func (b *bed) replace(ctx context.Context, i int) (time.Duration, error) {
	next, err := b.start(ctx, i)
	if err != nil {
		return 0, err
	}
	old := b.proxies[i]
	b.proxies[i] = next
	begin := time.Now()
	if err := old.retire(); err != nil {
		return 0, fmt.Errorf("an old instance: %w", err)
	}
	return time.Since(begin), nil
}

func (b *bed) log() string {
	text, err := os.ReadFile(filepath.Join(b.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (b *bed) close() {
	for _, p := range b.proxies {
		if p != nil {
			p.kill()
		}
	}
	for _, a := range b.agents {
		if a != nil {
			a.close()
		}
	}
	if b.pods != nil {
		b.pods.close()
	}
	if b.plane != nil {
		b.plane.close()
	}
	os.RemoveAll(b.dir)
}
