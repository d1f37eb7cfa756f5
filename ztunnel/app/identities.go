package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/proxy"
)

// identities asks for the certificates of the node's pods ahead of their connections, and drops those that no pod has any
// more. It implements inpod.Observer.
type identities struct {
	// immutable
	ctx         context.Context //nolint:containedctx // bounds what is asked for ahead
	certs       *certs.Manager
	trustDomain string
	patience    time.Duration
	log         *slog.Logger

	mu    sync.Mutex        // guards the rest
	pods  map[spiffe.ID]int // pods per identity
	until time.Time         // no pod waits for its certificate any longer; zero: none has yet
}

// snapshotPatience is how many times the patience for one pod is that for all of a snapshot.
const snapshotPatience = 3

// prepare waits for a pod's certificate: who is served by another process meanwhile had better not wait for it here.
func (i *identities) prepare(ctx context.Context, pod proxy.Info) {
	if i.patience == 0 {
		return
	}
	now := time.Now()
	i.mu.Lock()
	if i.until.IsZero() {
		i.until = now.Add(snapshotPatience * i.patience)
	}
	until := i.until
	i.mu.Unlock()
	if limit := now.Add(i.patience); limit.Before(until) {
		until = limit
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	if _, err := i.certs.Get(ctx, i.id(pod)); err != nil {
		i.log.Warn("the proxy of a pod starts without the pod's certificate", "pod", pod.Namespace+"/"+pod.Name, "error", err)
	}
}

func (i *identities) id(pod proxy.Info) spiffe.ID {
	return spiffe.ID{TrustDomain: i.trustDomain, Namespace: pod.Namespace, ServiceAccount: pod.ServiceAccount}
}

// PodAdded implements inpod.Observer.
func (i *identities) PodAdded(pod proxy.Info) {
	id := i.id(pod)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pods[id]++; i.pods[id] == 1 {
		// The outcome is logged and shown by the manager, and kept for whoever connects.
		go func() { _, _ = i.certs.Get(i.ctx, id) }()
	}
}

// PodRemoved implements inpod.Observer.
func (i *identities) PodRemoved(pod proxy.Info) {
	id := i.id(pod)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pods[id]--; i.pods[id] == 0 {
		delete(i.pods, id)
		i.certs.Forget(id)
	}
}
