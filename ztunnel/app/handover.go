package app

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/handover"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/inpod"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/proxy"
)

// door is where old instances hand over; open from when all pods are served until this instance drains.
type door struct {
	mu       sync.Mutex // guards the rest
	receiver *handover.Receiver
	shut     bool
}

// handoverDir is beside the agent's socket: both instances have the node's directory.
func (c Config) handoverDir() string { return filepath.Join(filepath.Dir(c.ZDSSocket), "handover") }

func (c Config) handoverSelf() handover.Self {
	return handover.Self{
		Node: c.NodeName, Cluster: c.ClusterID, TrustDomain: c.TrustDomain, Build: c.Build.Version,
		Least: c.HandoverVersions[0], Most: c.HandoverVersions[1],
	}
}

// succeed waits until all pods are served, and opens the door to an old instance; false says that ctx has ended. Without a door the
// old instance drains.
func (n *node) succeed(ctx context.Context) bool {
	select {
	case <-n.pods.Synced():
	case <-ctx.Done():
		return false
	}
	if !n.cfg.Handover {
		return true
	}
	log := telemetry.Scoped(n.cfg.Log, "handover")
	n.door.mu.Lock()
	defer n.door.mu.Unlock()
	if n.door.shut {
		return false
	}
	receiver, err := handover.Listen(n.cfg.handoverDir(), n.cfg.handoverSelf(), taker{n.pods}, log)
	if err != nil {
		log.Warn("connections of an old instance will not be taken over; it drains", "error", err)
		return true
	}
	n.door.receiver = receiver
	return true
}

// handOver gives what is open to the instance that has opened its door since, if there is one.
func (n *node) handOver(ctx context.Context) {
	log := telemetry.Scoped(n.cfg.Log, "handover")
	n.door.mu.Lock()
	receiver := n.door.receiver
	n.door.shut, n.door.receiver = true, nil
	n.door.mu.Unlock()
	if receiver != nil {
		receiver.Close()
	}
	sender, err := handover.Dial(ctx, n.cfg.handoverDir(), n.cfg.handoverSelf())
	switch {
	case errors.Is(err, handover.ErrNoSuccessor):
		log.Info("no successor on the node: open connections drain")
		return
	case err != nil:
		log.Warn("open connections drain", "error", err)
		return
	}
	defer sender.Close()
	moved := n.pods.HandOver(ctx, sender)
	log.Info("handed over", "connections", moved.Connections, "tunnels", moved.Tunnels, "stayed", moved.Stayed, "longest_pause", moved.Longest)
}

// taker gives offers to the pods. It implements handover.Taker.
type taker struct{ pods *inpod.Manager }

// Take implements handover.Taker.
func (t taker) Take(ctx context.Context, body []byte, files []*os.File) (handover.Taken, error) {
	parcel, err := proxy.OpenParcel(body)
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	adoption, err := t.pods.Adopt(ctx, parcel, files)
	if err != nil {
		return nil, err
	}
	return adoption, nil
}
