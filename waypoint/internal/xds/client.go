package xds

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/pkg/controlplane"
	"github.com/isthmus-mesh/isthmus/pkg/xds/client"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// Config of a Subscription.
type Config struct {
	Node     Node
	Upstream controlplane.Upstream
	Sink     Sink
	// CheckListener refuses listeners that compile but that something else of the proxy cannot honour; it may be nil.
	CheckListener func(*l7.Listener) error
	// Registerer takes the metrics of the connection; it may be nil.
	Registerer prometheus.Registerer
	Log        *slog.Logger
}

// Subscription keeps the configuration current.
type Subscription struct {
	*Assembler
	client *client.Client
}

// Subscribe makes a Subscription; Run drives it and Close ends it.
func Subscribe(c Config) (*Subscription, error) {
	node, err := c.Node.Proto()
	if err != nil {
		return nil, err
	}
	target, err := c.Upstream.Target()
	if err != nil {
		return nil, err
	}
	s := &Subscription{}
	s.Assembler = NewAssembler(c.Sink, func(typeURL string, add, remove []string) { s.client.Subscribe(typeURL, add, remove) }, c.Log)
	s.check = c.CheckListener
	s.client = client.New(client.Config{
		// Token and cluster go with each call, by the upstream's options.
		Target: target, Dial: c.Upstream.DialOptions,
		Node: node, Types: s.Watches(), Log: c.Log, Metrics: client.NewMetrics(c.Registerer),
	})
	return s, nil
}

// Run keeps the connection until the context ends.
func (s *Subscription) Run(ctx context.Context) error { return s.client.Run(ctx) }
