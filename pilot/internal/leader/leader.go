// Package leader makes one replica of the control plane, and no more, do what must not be done twice at a time.
package leader

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// Locks by the names that Istio gives them, so that a control plane of Istio beside ours does not do the same work.
const (
	NamespaceController = "istio-namespace-controller-election"
	GatewayDeployment   = "istio-gateway-deployment"
	Status              = "istio-status-leader"
	NodeUntaint         = "istio-node-untaint"
	IPAutoallocate      = "istio-ip-autoallocate"
	Webhooks            = "istio-leader"
	ClusterTrustBundle  = "istio-clustertrustbundle-controller-election"
)

// DefaultRevision is the one that comes before all others.
const DefaultRevision = "default"

// Config of an Elector.
type Config struct {
	Client kubernetes.Interface
	// Namespace of the locks.
	Namespace string
	// Identity of this replica: its pod's name.
	Identity string
	// Revision of this control plane; empty is the default one, which takes locks from the others and never the other way round.
	Revision string
	Log      *slog.Logger
	// Timing is DefaultTiming when empty.
	Timing Timing
}

// Timing of a lock.
type Timing struct {
	// Lease is how long a lock stays with a holder that says nothing; Renew how long the holder tries to renew it before it stops;
	// Retry how long to wait between attempts.
	Lease, Renew, Retry time.Duration
}

// DefaultTiming moves a lock half a minute after its holder was lost.
func DefaultTiming() Timing {
	return Timing{Lease: 30 * time.Second, Renew: 15 * time.Second, Retry: 5 * time.Second}
}

// Elector runs things while this replica leads.
type Elector struct{ config Config }

// New returns an elector.
func New(config Config) *Elector {
	if config.Revision == "" {
		config.Revision = DefaultRevision
	}
	if config.Timing == (Timing{}) {
		config.Timing = DefaultTiming()
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	return &Elector{config}
}

// PerRevision is the name of a lock that the revisions do not share: each does the work for its own objects.
func (e *Elector) PerRevision(lock string) string { return lock + "-" + e.config.Revision }

// Run calls run whenever this replica gets the lock, and ends its context when the lock is lost or ctx ends. It blocks until ctx has
// ended and run has returned; only then the lock is given to others. A run that returns before is started again after a while.
func (e *Elector) Run(ctx context.Context, lock string, run func(context.Context) error) error {
	for ctx.Err() == nil {
		t := e.newTerm(ctx, lock, run)
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: t.lock, LeaseDuration: e.config.Timing.Lease, RenewDeadline: e.config.Timing.Renew, RetryPeriod: e.config.Timing.Retry,
			ReleaseOnCancel: true, Name: lock,
			Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: t.lead, OnStoppedLeading: func() {}},
		})
		if err != nil {
			return fmt.Errorf("lock %s: %w", lock, err)
		}
		t.elect(ctx, elector.Run)
		if ctx.Err() == nil {
			pause(ctx, e.config.Timing.Retry)
		}
	}
	return nil
}

// pause waits for about as long as d.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d/2 + rand.N(d))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// term is one time of waiting for a lock and having it.
type term struct {
	lock    *priorityLock
	cancel  context.CancelFunc // ends the election, and gives the lock back
	begun   chan struct{}      // closed when run is about to be called
	ended   chan struct{}      // closed when run has returned
	outer   context.Context    //nolint:containedctx // the context of Elector.Run: leadership ends with either
	run     func(context.Context) error
	log     *slog.Logger // with the lock's name
	plain   *slog.Logger // for the election, which names the lock itself
	backoff time.Duration
}

func (e *Elector) newTerm(ctx context.Context, lock string, run func(context.Context) error) *term {
	t := &term{
		begun: make(chan struct{}), ended: make(chan struct{}), outer: ctx, run: run, plain: e.config.Log,
		log: e.config.Log.With("lock", lock), backoff: e.config.Timing.Retry,
	}
	t.lock = &priorityLock{
		Interface: &resourcelock.LeaseLock{
			LeaseMeta:  leaseMeta(e.config.Namespace, lock),
			Client:     e.config.Client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity(e.config.Identity, e.config.Revision)},
		},
		first: e.config.Revision == DefaultRevision,
	}
	return t
}

// elect takes part in the election until the lock is lost or ctx has ended and everything has stopped.
func (t *term) elect(ctx context.Context, election func(context.Context)) {
	// The election outlives ctx: the lock may be given back only after run has returned.
	own, cancel := context.WithCancel(klog.NewContext(context.WithoutCancel(ctx), logr.FromSlogHandler(t.plain.Handler())))
	defer cancel()
	t.cancel = cancel
	t.lock.lost = cancel
	over := make(chan struct{})
	go func() {
		defer close(over)
		election(own)
	}()
	select {
	case <-over:
	case <-ctx.Done():
		select {
		case <-t.begun:
			<-t.ended
		default:
		}
		cancel()
		<-over
	}
	// A term that ended as it began: what was started has to return all the same.
	select {
	case <-t.begun:
		<-t.ended
	default:
	}
}

// lead calls run while the term lasts.
func (t *term) lead(ctx context.Context) {
	close(t.begun)
	defer close(t.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.outer, cancel)() //nolint:contextcheck // the second of its ends
	t.log.Info("this replica leads")
	for wait := t.backoff; ctx.Err() == nil; wait = min(2*wait, time.Minute) {
		err := t.run(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			t.log.Error("what the leader does has failed; it is started again", "error", err)
		}
		pause(ctx, wait)
	}
	t.log.Info("this replica leads no more")
}
