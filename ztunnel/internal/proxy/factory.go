package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/budget"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// The ports of the listeners in each pod.
const (
	OutboundPort  = 15001
	PlaintextPort = 15006
)

// Info names a pod.
type Info struct{ Name, Namespace, ServiceAccount string }

// Pod is one enrolled pod.
type Pod struct {
	UID  string
	Info Info
	// Net makes sockets in the pod's network namespace. The Instance does not close it.
	Net netx.Network
}

// CertSource provides certificates of local workloads. Get blocks until there is one.
type CertSource interface {
	Get(ctx context.Context, id spiffe.ID) (*certs.Workload, error)
}

// Resolver finds the addresses of workloads that are known by host name only.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Companion is a further server that lives as long as a pod's Instance, such as the DNS proxy.
type Companion interface {
	// StartPod returns once the server listens; closing the result stops it.
	StartPod(ctx context.Context, pod Pod, local *Local) (io.Closer, error)
}

// Config of all instances.
type Config struct {
	Node string // this node's name; workloads elsewhere are never local
	// IPv6 is whether to listen on IPv6 too; where the pod has none, listening falls back to IPv4.
	IPv6 bool
	// ResponseBaggage describes the destination to the peer in the answer to a CONNECT.
	ResponseBaggage bool
	// LogDecisions logs at info level by which policy a connection was allowed or denied.
	LogDecisions bool
	// ConnectTimeout bounds dials, HandshakeTimeout the TLS handshake of a peer, LocalTimeout the wait for the control
	// plane to name a local workload.
	ConnectTimeout, HandshakeTimeout, LocalTimeout time.Duration
	// RepeatWindow is for how long further attempts at one connection begin.
	RepeatWindow time.Duration
	// MaxHandshakes bounds the peers of one pod that have not finished their handshake.
	MaxHandshakes int
	Pool          hbone.PoolConfig
	// Transport makes the TLS records of tunnels.
	Transport hbone.Transport
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.ConnectTimeout, 10*time.Second)
	set(&c.HandshakeTimeout, 10*time.Second)
	set(&c.LocalTimeout, 5*time.Second)
	set(&c.RepeatWindow, 3*time.Second)
	if c.MaxHandshakes == 0 {
		c.MaxHandshakes = 1024
	}
	return c
}

// Deps is what instances work with. Resolver, Companion, Demander and Revocation may be nil.
type Deps struct {
	Store     *l4.Store
	Certs     CertSource
	Resolver  Resolver
	Companion Companion
	// Demander is set in on-demand mode, where the state holds only what was asked for.
	Demander Demander
	// Revocation is asked about the other end of each tunnel.
	Revocation Revocation
	// Budget is what the workloads of the node share; nil is without limits.
	Budget *budget.Node
	// Sleepers are the connections that are idle for long; nil lets none sleep. It outlives the instances.
	Sleepers  *netx.Sleepers
	Metrics   *Metrics
	AccessLog *slog.Logger // scope "access"
	Log       *slog.Logger
	Config    Config
}

// Factory starts instances. Safe for concurrent use.
type Factory struct{ deps Deps }

// NewFactory returns a Factory.
func NewFactory(deps Deps) *Factory {
	deps.Config = deps.Config.withDefaults()
	if deps.Budget == nil {
		deps.Budget = budget.NewNode(budget.Limits{})
	}
	return &Factory{deps: deps}
}

// Start opens the pod's listeners; all accept when it returns. The instance outlives ctx, which only bounds starting.
func (f *Factory) Start(ctx context.Context, pod Pod) (*Instance, error) {
	i := newInstance(f.deps, pod)
	if err := i.listen(ctx); err != nil {
		i.closeListeners()
		i.abort(err)
		i.account.Close()
		return nil, fmt.Errorf("pod %s/%s: %w", pod.Info.Namespace, pod.Info.Name, err)
	}
	if f.deps.Companion != nil {
		companion, err := f.deps.Companion.StartPod(ctx, pod, i.local)
		if err != nil {
			i.closeListeners()
			i.abort(err)
			i.account.Close()
			return nil, fmt.Errorf("pod %s/%s: %w", pod.Info.Namespace, pod.Info.Name, err)
		}
		i.companion = companion
	}
	i.serve()
	return i, nil
}
