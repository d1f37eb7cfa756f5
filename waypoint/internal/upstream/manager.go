package upstream

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/trust"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// CertSource gives the proxy's own certificate in force.
type CertSource interface {
	Get(ctx context.Context) (*certs.Workload, error)
}

// Resolver finds the addresses of hosts that clusters know by name.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Deps is what a Manager works with. Certs may be nil where nothing is secured.
type Deps struct {
	Certs    CertSource
	Network  netx.Network
	Resolver Resolver
	Log      *slog.Logger
}

// Clusters is the clusters of one configuration, by name. It is immutable; the clusters in it live on.
type Clusters map[string]*Cluster

// Manager keeps all clusters. Safe for concurrent use.
type Manager struct {
	// immutable
	deps    Deps
	tunnels *hbone.Pool
	files   trust.Files
	ctx     context.Context //nolint:containedctx // bounds what runs in the background
	stop    context.CancelFunc

	cfg     atomic.Pointer[l7.Config]
	current atomic.Pointer[Clusters]
	work    sync.WaitGroup // resolvers and watchers of connections

	mu     sync.Mutex // guards updates
	closed bool
}

// NewManager returns a Manager without clusters. Close it.
func NewManager(deps Deps) *Manager {
	m := &Manager{deps: deps, files: trust.Files{Log: deps.Log}}
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.tunnels = hbone.NewPool(m.dialTunnel, hbone.PoolConfig{Log: deps.Log})
	m.cfg.Store(l7.NewConfig())
	m.current.Store(&Clusters{})
	return m
}

// Update makes the clusters those of cfg. Hosts that stay keep their connections; those of hosts and clusters that go end with
// the requests they carry.
func (m *Manager) Update(cfg *l7.Config) Clusters {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := *m.current.Load()
	if m.closed {
		return old
	}
	m.cfg.Store(cfg)
	next := make(Clusters, len(cfg.Clusters))
	for name, conf := range cfg.Clusters {
		c := old[name]
		if c == nil {
			c = newCluster(m, name)
		}
		c.update(conf, cfg.EndpointsOf(conf))
		next[name] = c
	}
	for name, c := range old {
		if next[name] == nil {
			c.drain()
		}
	}
	m.current.Store(&next)
	return next
}

// Clusters are those of the newest configuration.
func (m *Manager) Clusters() Clusters { return *m.current.Load() }

// State tells all clusters, sorted by name.
func (m *Manager) State() []ClusterState {
	clusters := m.Clusters()
	out := make([]ClusterState, 0, len(clusters))
	for _, c := range clusters {
		out = append(out, c.state())
	}
	slices.SortFunc(out, func(a, b ClusterState) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// CloseIdle closes the connections that carry nothing.
func (m *Manager) CloseIdle() {
	for _, c := range m.Clusters() {
		c.closeIdle()
	}
	m.tunnels.CloseIdle()
}

// Close ends all connections at once and waits for what runs in the background.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	clusters := *m.current.Load()
	m.mu.Unlock()
	m.stop()
	for _, c := range clusters {
		c.drain()
		c.abort()
	}
	m.tunnels.Close()
	m.work.Wait()
}

// sameTransport is whether connections made under one configuration may serve under the other.
func sameTransport(a, b *l7.Cluster) bool {
	return a == b || a.HTTP == b.HTTP && a.HTTP2 == b.HTTP2 && sameSocket(a.Socket, b.Socket) &&
		slices.EqualFunc(a.Sockets, b.Sockets, func(x, y l7.SocketMatch) bool {
			return x.Name == y.Name && maps.Equal(x.Match, y.Match) && sameSocket(x.Socket, y.Socket)
		})
}

// sameSocket compares what is trusted by its text: there are locks in it, and parts that cannot be compared.
func sameSocket(a, b l7.Socket) bool {
	if a.Kind != b.Kind || a.Proxy != b.Proxy || (a.TLS == nil) != (b.TLS == nil) {
		return false
	}
	if a.TLS == nil {
		return true
	}
	x, y := *a.TLS, *b.TLS
	if !x.Trusted.Same(y.Trusted) || !x.Revocation.Lists.Same(y.Revocation.Lists) {
		return false
	}
	x.Trusted, y.Trusted, x.Revocation.Lists, y.Revocation.Lists = nil, nil, nil, nil
	return reflect.DeepEqual(x, y)
}
