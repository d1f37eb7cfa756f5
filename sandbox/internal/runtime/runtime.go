// Package runtime runs the pods that are placed on nodes: network, file system, containers as local processes, probes,
// logs, status.
//
// runtime.go follows the store, pod.go is a pod's life, container.go a container's, volume.go what is mounted into it,
// probe.go asks whether it is well, exec.go runs further commands in it.
package runtime

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/images"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/network"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/rootfs"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/token"
)

// Node is a node and its CNI plugins.
type Node struct {
	*network.Node
	CNI *network.CNI
}

// Config of a Runtime.
type Config struct {
	Store *store.Store
	Nodes map[string]Node
	// Images resolves to programs below ProgramDir, where Programs shows them in every container.
	Images   *images.Table
	Programs rootfs.Bind
	// Dir is for the runtime's own files, Logs for those of the containers.
	Dir, Logs string
	Signer    *token.Signer
	// DNS is the cluster's resolver.
	DNS string
	// HostPath shows a directory to the mesh's own pods, besides those that are a node's own.
	HostPath func(path string) (string, bool)
	Log      *slog.Logger
}

// Runtime runs pods.
type Runtime struct {
	cfg Config
	ctx context.Context //nolint:containedctx // the runtime's life

	mu   sync.Mutex // guards pods
	pods map[types.UID]*pod
	all  sync.WaitGroup
}

// New returns a runtime that lives as long as ctx.
func New(ctx context.Context, cfg Config) *Runtime {
	return &Runtime{cfg: cfg, ctx: ctx, pods: map[types.UID]*pod{}}
}

// Sync starts the pods that are new, and ends those that are to be ended or gone. It does not wait for either.
func (r *Runtime) Sync() {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := map[types.UID]bool{}
	for _, object := range store.List[*corev1.Pod](r.cfg.Store) {
		node, ok := r.cfg.Nodes[object.Spec.NodeName]
		if !ok {
			continue
		}
		seen[object.UID] = true
		p, ok := r.pods[object.UID]
		if !ok {
			p = newPod(r, node, object)
			r.pods[object.UID] = p
			r.all.Go(func() { p.live(r.ctx); r.forget(p) })
		}
		p.nudge()
		if object.DeletionTimestamp != nil {
			grace := 30 * time.Second
			if object.DeletionGracePeriodSeconds != nil {
				grace = time.Duration(*object.DeletionGracePeriodSeconds) * time.Second
			}
			p.end(grace)
		}
	}
	for uid, p := range r.pods {
		if !seen[uid] {
			p.end(0)
		}
	}
}

func (r *Runtime) forget(p *pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pods, p.object.UID)
}

// find returns a running pod by name.
func (r *Runtime) find(namespace, name string) (*pod, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pods {
		if p.object.Namespace == namespace && p.object.Name == name {
			return p, true
		}
	}
	return nil, false
}

// LogFile is where a container's output goes.
func (r *Runtime) LogFile(object *corev1.Pod, container string) string {
	return filepath.Join(r.cfg.Logs, object.Namespace+"_"+object.Name+"_"+string(object.UID), container+".log")
}

// NetNS returns the network namespace of a pod; the caller must not close it.
func (r *Runtime) NetNS(namespace, name string) (*os.File, bool) {
	p, ok := r.find(namespace, name)
	if !ok {
		return nil, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.net, p.net != nil
}
