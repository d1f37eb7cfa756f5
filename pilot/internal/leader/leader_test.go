package leader

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
)

const patience = time.Minute

func quick() Timing {
	return Timing{Lease: 2 * time.Second, Renew: 600 * time.Millisecond, Retry: 100 * time.Millisecond}
}

// steady is a term that no delay of a machine ends: who does not give the lock back keeps it for longer than a test waits.
func steady() Timing {
	return Timing{Lease: 10 * time.Minute, Renew: 9 * time.Minute, Retry: 100 * time.Millisecond}
}

// replica is an elector that runs until it is stopped.
type replica struct {
	leads atomic.Bool
	stop  func()
}

func start(t *testing.T, client kubernetes.Interface, pod, revision string, timing Timing) *replica {
	t.Helper()
	r := &replica{}
	e := New(Config{Client: client, Namespace: "istio-system", Identity: pod, Revision: revision, Timing: timing})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := e.Run(ctx, Status, func(ctx context.Context) error {
			r.leads.Store(true)
			<-ctx.Done()
			r.leads.Store(false)
			return nil
		}); err != nil {
			t.Error(err)
		}
	}()
	r.stop = func() { cancel(); <-done }
	t.Cleanup(r.stop)
	return r
}

// newClient is a fake that refuses writes of what has changed meanwhile, as the API does.
func newClient() *fake.Clientset {
	client := fake.NewClientset()
	var version atomic.Int64
	client.PrependReactor("create", "leases", func(a ktesting.Action) (bool, runtime.Object, error) {
		a.(ktesting.CreateAction).GetObject().(*coordinationv1.Lease).ResourceVersion = strconv.FormatInt(version.Add(1), 10)
		return false, nil, nil
	})
	client.PrependReactor("update", "leases", func(a ktesting.Action) (bool, runtime.Object, error) {
		next := a.(ktesting.UpdateAction).GetObject().(*coordinationv1.Lease)
		stored, err := client.Tracker().Get(a.GetResource(), next.Namespace, next.Name)
		if err != nil {
			return true, nil, err
		}
		if stored.(*coordinationv1.Lease).ResourceVersion != next.ResourceVersion {
			return true, nil, apierrors.NewConflict(a.GetResource().GroupResource(), next.Name, errors.New("changed"))
		}
		next.ResourceVersion = strconv.FormatInt(version.Add(1), 10)
		return false, nil, nil
	})
	return client
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	wait.Until(t, patience, what, ok, nil)
}

func holder(t *testing.T, client kubernetes.Interface) string {
	t.Helper()
	lease, err := client.CoordinationV1().Leases("istio-system").Get(t.Context(), Status, metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

func TestOneLeadsAndTheNextTakesOverAtOnce(t *testing.T) {
	client := newClient()
	a := start(t, client, "istiod-a", "", steady())
	eventually(t, "a leads", a.leads.Load)
	b := start(t, client, "istiod-b", "", steady())
	a.stop()
	if a.leads.Load() {
		t.Error("a has not stopped")
	}
	eventually(t, "b leads, as the lock was given back", b.leads.Load)
	if got := holder(t, client); got != "istiod-b_default" {
		t.Errorf("holder %q", got)
	}
}

func TestTheDefaultRevisionComesFirst(t *testing.T) {
	client := newClient()
	canary := start(t, client, "istiod-canary-1", "canary", steady())
	eventually(t, "the canary leads", canary.leads.Load)
	stable := start(t, client, "istiod-1", "default", steady())
	eventually(t, "the default revision leads", stable.leads.Load)
	eventually(t, "the canary has stopped", func() bool { return !canary.leads.Load() })
	for range 5 { // and it stays so
		<-time.After(steady().Retry)
		if canary.leads.Load() || !stable.leads.Load() {
			t.Fatal("the canary has taken the lock")
		}
	}
	stable.stop()
	eventually(t, "the canary leads again", canary.leads.Load)
}

func TestALostAPIEndsTheTerm(t *testing.T) {
	client := newClient()
	var down atomic.Bool
	client.PrependReactor("*", "leases", func(ktesting.Action) (bool, runtime.Object, error) {
		return down.Load(), nil, errors.New("connection refused")
	})
	r := start(t, client, "istiod-a", "", quick())
	eventually(t, "it leads", r.leads.Load)
	down.Store(true)
	eventually(t, "it has stopped", func() bool { return !r.leads.Load() })
	down.Store(false)
	eventually(t, "it leads again", r.leads.Load)
}

func TestTheLockIsKeptUntilTheWorkHasStopped(t *testing.T) {
	client := newClient()
	e := New(Config{Client: client, Namespace: "istio-system", Identity: "a", Timing: steady()})
	ctx, cancel := context.WithCancel(t.Context())
	started, mayStop, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		_ = e.Run(ctx, Status, func(ctx context.Context) error {
			close(started)
			<-ctx.Done()
			<-mayStop
			return nil
		})
	}()
	<-started
	cancel()
	<-time.After(2 * quick().Retry)
	if got := holder(t, client); got != "a_default" {
		t.Errorf("holder %q while the work goes on", got)
	}
	close(mayStop)
	<-done
	if got := holder(t, client); got != "" {
		t.Errorf("holder %q afterwards", got)
	}
}

func TestWorkThatFailsIsStartedAgain(t *testing.T) {
	client := newClient()
	e := New(Config{Client: client, Namespace: "istio-system", Identity: "a", Timing: quick()})
	ctx, cancel := context.WithCancel(t.Context())
	runs := 0
	if err := e.Run(ctx, Status, func(context.Context) error {
		if runs++; runs == 3 {
			cancel()
		}
		return errors.New("no")
	}); err != nil || runs != 3 {
		t.Errorf("%d runs, %v", runs, err)
	}
}
