package client

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
)

// Resource is one received resource; see delta.Resource. Groups is not on the wire, and empty.
type Resource = delta.Resource

// Rejected names a resource that could not be used, and why.
type Rejected = delta.Rejected

// Handler takes the resources of one type. Apply is called with one response at a time, from the goroutine of Run. What it
// rejects is refused to the server by name; the rest of the response stands. Removed names may be unknown to the handler.
type Handler interface {
	Apply(updated []Resource, removed []string) []Rejected
}

// Watch is one type to subscribe to.
type Watch struct {
	TypeURL string
	Handler Handler
	// OnDemand subscribes to nothing but what Demand asks for.
	OnDemand bool
	// Named subscribes to the names that Subscribe gave, as Envoy does for routes and endpoints. Not with OnDemand.
	Named bool
}

// Config of a Client.
type Config struct {
	// Target is a gRPC target, such as "istiod.istio-system.svc:15012".
	Target string
	// Dial returns the options of one connection, of which transport credentials are required. It is called for each connection
	// anew, so that renewed root certificates are read.
	Dial func() ([]grpc.DialOption, error)
	// Token returns the bearer token for one connection. It is called for each connection anew, as tokens rotate. If nil, none
	// is sent.
	Token func() (string, error)
	// ClusterID is sent as "clusterid"; empty is not sent.
	ClusterID string
	// Node goes with the first request of each type.
	Node *corev3.Node
	// Types are subscribed in this order.
	Types   []Watch
	Log     *slog.Logger
	Metrics *Metrics
}

// Client is a subscription. Create it with New, drive it with Run.
type Client struct {
	// immutable
	cfg      Config
	handlers map[string]Handler
	connect  connector
	synced   chan struct{} // closed by Run when all wildcard types have been answered
	send     chan struct{} // holds one token: outbox is not empty

	// guarded by mu
	mu      sync.Mutex
	state   *delta.Client
	outbox  []*discovery.DeltaDiscoveryRequest // demands to be sent on the present connection
	online  bool
	waiters map[want][]chan struct{}
	names   map[string]map[string]struct{} // of named types, by type URL
}

// want is a demanded name.
type want struct{ typeURL, name string }

// New returns a client that has nothing yet.
func New(cfg Config) *Client {
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Client{
		cfg:      cfg,
		handlers: map[string]Handler{},
		synced:   make(chan struct{}),
		send:     make(chan struct{}, 1),
		waiters:  map[want][]chan struct{}{},
		names:    map[string]map[string]struct{}{},
	}
	c.connect = c.dial
	watches := make([]delta.Watch, len(cfg.Types))
	for i, w := range cfg.Types {
		watches[i] = delta.Watch{TypeURL: w.TypeURL, OnDemand: w.OnDemand || w.Named}
		if w.Named {
			c.names[w.TypeURL] = map[string]struct{}{}
		}
		c.handlers[w.TypeURL] = w.Handler
	}
	c.state = delta.NewClient(cfg.Node, watches...)
	return c
}

// Synced is closed once every wildcard type has been answered for the first time.
func (c *Client) Synced() <-chan struct{} { return c.synced }

// Run keeps the subscription until the context ends, and then returns its error. It must be called once.
func (c *Client) Run(ctx context.Context) error {
	for {
		err := c.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		how, reason := classify(err)
		c.mu.Lock()
		wait := c.state.Closed(how)
		c.mu.Unlock()
		c.cfg.Metrics.terminations.WithLabelValues(reason).Inc()
		c.cfg.Log.Warn("xds connection ended; serving what is known", "server", c.cfg.Target, "reason", reason, "error", err, "retry_in", wait)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Demand asks for a resource of an on-demand type, and returns when the server has answered: the handler has then applied
// it, or the server has none of that name.
func (c *Client) Demand(ctx context.Context, typeURL, name string) error {
	c.mu.Lock()
	request, known, err := c.state.Demand(typeURL, name)
	if err != nil || known {
		c.mu.Unlock()
		return err
	}
	done := make(chan struct{})
	w := want{typeURL, name}
	c.waiters[w] = append(c.waiters[w], done)
	if request != nil && c.online {
		c.queueLocked(request)
	}
	c.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		c.abandon(w, done)
		return fmt.Errorf("demand %s: %w", name, ctx.Err())
	}
}

// abandon removes a waiter. The demand itself stands: the answer is useful to whoever asks next.
func (c *Client) abandon(w want, done chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.waiters[w][:0]
	for _, other := range c.waiters[w] {
		if other != done {
			kept = append(kept, other)
		}
	}
	if c.waiters[w] = kept; len(kept) == 0 {
		delete(c.waiters, w)
	}
}

// wake ends the waits for names of a type. Callers hold mu.
func (c *Client) wake(typeURL string, names []string) {
	for _, name := range names {
		w := want{typeURL, name}
		for _, done := range c.waiters[w] {
			close(done)
		}
		delete(c.waiters, w)
	}
}
