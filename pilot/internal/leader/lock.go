package leader

import (
	"context"
	"errors"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// errTaken ends the term of a holder that another one has replaced.
var errTaken = errors.New("the lock has been taken by a control plane of the default revision")

func leaseMeta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

// identity names a replica and its revision. Neither has an underscore.
func identity(pod, revision string) string { return pod + "_" + revision }

// revisionOf is the revision of a holder, the default one if it does not say.
func revisionOf(holder string) string {
	if _, revision, ok := strings.Cut(holder, "_"); ok {
		return revision
	}
	return DefaultRevision
}

// priorityLock is a lock that looks free to the default revision while another one holds it.
type priorityLock struct {
	resourcelock.Interface
	first bool   // this is the default revision
	lost  func() // ends the term

	mu    sync.Mutex
	held  bool // guarded by mu: the last write made us the holder
	taken bool // guarded by mu: somebody else has been seen since
}

// Get implements resourcelock.Interface.
func (l *priorityLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	if err != nil {
		return record, raw, err
	}
	other := record.HolderIdentity != "" && record.HolderIdentity != l.Identity()
	l.mu.Lock()
	if other && l.held && !l.taken {
		l.taken = true
		l.lost()
	}
	l.mu.Unlock()
	if other && l.first && revisionOf(record.HolderIdentity) != DefaultRevision {
		free := *record
		free.HolderIdentity = ""
		return &free, raw, nil
	}
	return record, raw, nil
}

// Create implements resourcelock.Interface.
func (l *priorityLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, record, l.Interface.Create)
}

// Update implements resourcelock.Interface.
func (l *priorityLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, record, l.Interface.Update)
}

func (l *priorityLock) write(ctx context.Context, record resourcelock.LeaderElectionRecord, write func(context.Context, resourcelock.LeaderElectionRecord) error) error {
	l.mu.Lock()
	taken := l.taken
	l.mu.Unlock()
	switch {
	case taken && record.HolderIdentity == "":
		return nil // there is nothing to give back any more
	case taken:
		return errTaken
	}
	if err := write(ctx, record); err != nil {
		return err
	}
	l.mu.Lock()
	l.held = record.HolderIdentity == l.Identity()
	l.mu.Unlock()
	return nil
}
