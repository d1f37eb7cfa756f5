package upgradebed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/sandbox/demo/wiretap"
)

// Options of a run.
type Options struct {
	// Idle connections and Streams, which are streaming gRPC calls, are open while the proxies are replaced.
	Idle, Streams int
	// Conversations are connections on which numbered lines go to and fro all the time.
	Conversations int
	// Rounds is how often each of the two proxies is replaced.
	Rounds int
	// Foreign is the pod that has a real Envoy, whose program is Envoy.
	Foreign Foreign
	Envoy   string
	// Transport of the proxies; [hbone.Records], unless Standard says that it is crypto/tls, of which nothing can be handed over.
	Standard bool
	// Patient runs end all that is open while the old instances drain, and wait for them to go. Otherwise these end it themselves, after Drain.
	Patient bool
	// Plain pods have no tunnels.
	Plain bool
	// Tap looks at every packet between the pods.
	Tap bool
	// Versions are the hand-over's versions that the instances understand, by turns; none is this build's.
	Versions [][2]uint64
	// Programs are what the instances run, by turns: test binaries of this package, of other commits; none, and "", is this one.
	Programs []string
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
	// Changed are conversations in which other bytes came than were sent. They are among the dropped.
	Changed int
	// First is what was dropped first, or nil.
	First error
	// Wire is what the tap has found: when the load was open, then after each replacement, then at the end.
	Wire []wiretap.Findings
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
	proxies [2]*proxy // nil is a foreign one
	envoy   *envoy
	tap     *tap
	wire    []wiretap.Findings // up to now
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
	if err := b.listen(ctx, l); err != nil {
		return r, err
	}
	for range max(o.Rounds, 1) {
		for i := range b.proxies {
			if b.proxies[i] == nil {
				continue
			}
			took, err := b.replace(ctx, i, l)
			if err == nil && !o.Patient {
				err = b.listen(ctx, l)
			}
			if err != nil {
				return r, errors.Join(err, errors.New(b.log()))
			}
			r.Leaving = max(r.Leaving, took)
		}
	}
	l.finish()
	if b.tap != nil {
		if r.Wire, err = b.overheard(ctx, l); err != nil {
			return r, fmt.Errorf("the tap: %w", err)
		}
	}
	r.Changed = int(l.changed.Load())
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
	if b.plane, err = newPlane(b.o.Plain); err != nil {
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
	if b.o.Tap {
		if b.tap, err = startTap(ctx, b.pods.names[0]); err != nil {
			return err
		}
	}
	for i := range b.proxies {
		if b.o.Foreign.is(i) {
			b.envoy, err = b.startEnvoy(ctx)
		} else {
			b.proxies[i], err = b.start(ctx, i)
		}
		if err != nil {
			return errors.Join(err, errors.New(b.log()))
		}
	}
	return nil
}

// overheard ends the tap, once it has heard a last request, and returns all its findings.
func (b *bed) overheard(ctx context.Context, l *load) ([]wiretap.Findings, error) {
	last := b.wire[len(b.wire)-1]
	if err := l.request(ctx); err != nil {
		return nil, err
	}
	err := b.tap.until(ctx, last.Total()+1) // what is captured comes a block at a time
	err = errors.Join(err, b.tap.close())
	all := append(b.wire, b.tap.findings())
	b.tap = nil
	return all, err
}

// drained returns when the old instance has handed over what it can, or has given up.
func (b *bed) drained(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !strings.Contains(b.log(), "stayed=") {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return errors.New("an old instance does not begin to drain")
		}
	}
	return nil
}

// listen makes sure that the load goes on, and notes what the tap has found once it has seen that.
func (b *bed) listen(ctx context.Context, l *load) error {
	before := 0
	if b.tap != nil {
		before = b.tap.findings().Total()
	}
	if err := l.progress(ctx); err != nil || b.tap == nil {
		return err
	}
	err := b.tap.until(ctx, before+b.o.Conversations*ahead*len(said(0, 0)))
	b.wire = append(b.wire, b.tap.findings())
	return err
}

// socket is in the directory that a node's instances share.
func (b *bed) socket(i int) string { return filepath.Join(b.dir, nodeNames()[i], "ztunnel.sock") }

func (b *bed) start(ctx context.Context, i int) (*proxy, error) {
	s := setup{Node: nodeNames()[i], Plane: b.plane.addr, Token: filepath.Join(b.dir, "token"), Socket: b.socket(i), Drain: b.o.Drain, Transport: hbone.Records}
	if b.o.Standard {
		s.Transport = hbone.Standard
	}
	if n := len(b.o.Versions); n > 0 {
		s.Versions = b.o.Versions[b.started%n]
	}
	if n := len(b.o.Programs); n > 0 {
		s.program = b.o.Programs[b.started%n]
	}
	b.started++
	return startProxy(ctx, s, filepath.Join(b.dir, "log"))
}

// replace starts a further instance on a node, then ends the first, and returns how long that took to leave.
// A patient one ends the load before.
func (b *bed) replace(ctx context.Context, i int, l *load) (time.Duration, error) {
	next, err := b.start(ctx, i)
	if err != nil {
		return 0, err
	}
	old := b.proxies[i]
	b.proxies[i] = next
	begin := time.Now()
	err = old.retire()
	if err == nil && b.o.Patient {
		if err = b.drained(ctx); err == nil {
			err = b.listen(ctx, l)
		}
		l.finish()
	}
	if err == nil {
		err = old.gone()
	}
	if err != nil {
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
	if b.envoy != nil {
		b.envoy.kill()
	}
	if b.tap != nil {
		_ = b.tap.close() // the run has failed in another way
	}
	if b.pods != nil {
		b.pods.close()
	}
	if b.plane != nil {
		b.plane.close()
	}
	os.RemoveAll(b.dir)
}
