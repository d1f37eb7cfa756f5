package proxy

import (
	"context"
	"fmt"
	"time"

	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// Local finds a pod's own workload in the state. Safe for concurrent use.
type Local struct {
	store   *l4.Store
	node    string
	info    Info
	timeout time.Duration
}

// Workload returns the current State and the pod's workload in it. A pod may connect before the control plane has told
// of it, so it waits a little.
func (l *Local) Workload(ctx context.Context) (*l4.State, *l4.Workload, error) {
	state := l.store.Load()
	if w := l.find(state); w != nil {
		return state, w, nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	state, err := l.store.Wait(ctx, func(s *l4.State) bool { return l.find(s) != nil })
	if err != nil {
		return nil, nil, fmt.Errorf("workload %s/%s (service account %s) on node %s is unknown to the control plane: %w",
			l.info.Namespace, l.info.Name, l.info.ServiceAccount, l.node, err)
	}
	return state, l.find(state), nil
}

func (l *Local) find(s *l4.State) *l4.Workload {
	return s.LocalWorkload(l.node, l.info.Namespace, l.info.Name, l.info.ServiceAccount)
}
