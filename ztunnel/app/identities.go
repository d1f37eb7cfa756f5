package app

import (
	"context"
	"sync"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/proxy"
)

// identities asks for the certificates of the node's pods ahead of their connections, and drops those that no pod has any
// more. It implements inpod.Observer.
type identities struct {
	ctx         context.Context //nolint:containedctx // bounds what is asked for ahead
	certs       *certs.Manager
	trustDomain string

	mu   sync.Mutex
	pods map[spiffe.ID]int // pods per identity; guarded by mu
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
