package spans

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/export"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/tracing"
)

// Config of a Tracer.
type Config struct {
	// Service is what the proxy is called where a provider does not say; Node and Zone are where it is.
	Service, Node, Zone string
	// Address of the proxy, for Zipkin.
	Address string
	// Version of the proxy.
	Version string
	// Environment finds variables for tags.
	Environment func(name string) (string, bool)
	Send        export.Send
	Log         *slog.Logger
}

// Tracer reports the spans of requests that have ended. It implements telemetry.Writer.
type Tracer struct {
	config       Config
	otel, zipkin export.Counters
	buffers      sync.Pool // of *[]byte

	reporters sync.Map // *tracing.Config → *reporter, until Forget
	leaving   sync.WaitGroup

	mu       sync.Mutex // guards the rest
	batchers map[string]*export.Batcher
	closed   bool
}

// reporter makes the spans of one configuration.
type reporter struct {
	of    *tracing.Config
	tags  []tag
	batch *export.Batcher
}

// New makes a Tracer; Close ends it.
func New(config Config) *Tracer {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	return &Tracer{config: config, batchers: map[string]*export.Batcher{}, buffers: sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}}
}

// OpenTelemetry and Zipkin count spans.
func (t *Tracer) OpenTelemetry() *export.Counters { return &t.otel }

// Zipkin counts the spans of Zipkin's protocol.
func (t *Tracer) Zipkin() *export.Counters { return &t.zipkin }

// Write reports the span of a record, if it has one that was sampled. It keeps nothing of the record.
func (t *Tracer) Write(r *proxy.Record) {
	if r.Decision == nil || r.Decision.Span == nil || !r.Decision.Span.Sampled {
		return
	}
	p := t.reporter(r.Decision.Span.Config)
	if p == nil || p.batch == nil {
		return
	}
	buffer := t.buffers.Get().(*[]byte)
	v := view{r: r, span: r.Decision.Span, tags: p.tags, config: &t.config}
	if p.of.Provider.Kind == tracing.Zipkin {
		*buffer = v.appendZipkin((*buffer)[:0])
	} else {
		*buffer = v.appendOTLP((*buffer)[:0])
	}
	p.batch.Add(*buffer)
	t.buffers.Put(buffer)
}

func (t *Tracer) reporter(c *tracing.Config) *reporter {
	if known, ok := t.reporters.Load(c); ok {
		return known.(*reporter)
	}
	p := &reporter{of: c}
	var err error
	if p.tags, err = compileTags(c, t.config.Environment); err != nil { // Check refused it before it came here
		t.config.Log.Error("tags of spans", "error", err)
	}
	p.batch = t.batcher(&c.Provider)
	t.reporters.Store(c, p)
	return p
}

// identity is what makes two providers one.
func identity(p *tracing.Provider) string {
	return fmt.Sprintf("%d|%s|%s|%s|%s|%s|%v", p.Kind, p.Cluster, p.Authority, p.Path, p.Timeout, p.ServiceName, p.Headers)
}

func (t *Tracer) batcher(p *tracing.Provider) *export.Batcher {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := identity(p)
	if b := t.batchers[key]; b != nil || t.closed {
		return b
	}
	service := p.ServiceName
	if service == "" {
		service = t.config.Service
	}
	counters, encoding := &t.otel, export.JSON()
	if p.Kind == tracing.Zipkin {
		counters = &t.zipkin
	} else {
		encoding = export.OTLP(p.Kind == tracing.OpenTelemetryGRPC, []export.Attribute{
			{Key: "service.name", Value: service},
			{Key: "telemetry.sdk.language", Value: "go"},
			{Key: "telemetry.sdk.name", Value: "isthmus"},
			{Key: "telemetry.sdk.version", Value: t.config.Version},
		}, "isthmus", t.config.Version)
	}
	b := export.NewBatcher(*p, encoding, t.config.Send, counters, t.config.Log)
	t.batchers[key] = b
	return b
}

// Forget drops what is kept for listeners that no longer serve, and ends the work for collectors that none of the present ones names.
func (t *Tracer) Forget(listeners map[string]*l7.Listener) {
	used := map[string]bool{}
	for _, l := range listeners {
		for _, ch := range chainsOf(l) {
			if c := configOf(ch); c != nil {
				used[identity(&c.Provider)] = true
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reporters.Clear()
	for key, b := range t.batchers {
		if !used[key] {
			delete(t.batchers, key)
			t.leaving.Go(b.Close) // sends what waits
		}
	}
}

// Close sends what waits.
func (t *Tracer) Close() {
	t.mu.Lock()
	t.closed = true
	batchers := t.batchers
	t.batchers = map[string]*export.Batcher{}
	t.mu.Unlock()
	var work sync.WaitGroup
	for _, b := range batchers {
		work.Go(b.Close)
	}
	work.Wait()
	t.leaving.Wait()
}

func chainsOf(l *l7.Listener) []*l7.Chain {
	if l.Default == nil {
		return l.Chains
	}
	return append(slices.Clone(l.Chains), l.Default)
}

func configOf(ch *l7.Chain) *tracing.Config {
	switch {
	case ch.HTTP != nil:
		return ch.HTTP.Tracing
	case ch.Terminate != nil && ch.Terminate.HTTP != nil:
		return ch.Terminate.HTTP.Tracing
	}
	return nil
}

// Check is whether the tags of a listener's spans can be made. The error names the chain and the tag.
func Check(listener *l7.Listener) error {
	for _, ch := range chainsOf(listener) {
		if c := configOf(ch); c != nil {
			if _, err := compileTags(c, nil); err != nil {
				return fmt.Errorf("filter chain %q: tracing: %w", strings.TrimSpace(ch.Name), err)
			}
		}
	}
	return nil
}
