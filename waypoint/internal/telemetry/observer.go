package telemetry

import (
	"sync"
	"sync/atomic"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// maxLabelSets is how many combinations of labels are told apart. Clients choose some of the values (what their proxies say of
// them), so there is an end to it.
const maxLabelSets = 1 << 14

// Writer takes each record that ended, as the access log does.
type Writer interface{ Write(r *proxy.Record) }

// Observer counts records and hands those that ended to the access log. It implements proxy.Observer.
type Observer struct {
	metrics *Metrics
	self    Self
	log     Writer // may be nil

	sets     atomic.Int64
	requests sync.Map // key → *requestHandles
	tcp      sync.Map // key → *connectionHandles
	shadowed sync.Map // shadowKey → counter
	open     sync.Map // connection ID → *progress

	// Where chains say something of metrics: *structpb.Struct → *rules until Forget, content → *rules, and ruledKey → handles.
	rules, contents, ruledRequests, ruledTCP sync.Map
}

// progress is what was counted of an open connection.
type progress struct {
	mu             sync.Mutex // guards the rest: a report and the end may meet
	handles        *connectionHandles
	sent, received uint64
}

// NewObserver counts as self.
func NewObserver(metrics *Metrics, self Self, log Writer) *Observer {
	return &Observer{metrics: metrics, self: self, log: log}
}

// Opened implements proxy.Observer.
func (o *Observer) Opened(r *proxy.Record) {
	if r.Kind != proxy.KindConnection {
		return
	}
	p := &progress{handles: o.connection(r)}
	p.handles.opened.Inc()
	o.open.Store(r.ConnectionID, p)
}

// Progress implements proxy.Observer.
func (o *Observer) Progress(r *proxy.Record) {
	if p, ok := o.open.Load(r.ConnectionID); ok {
		p.(*progress).report(r)
	}
}

// report adds what came since the last time.
func (p *progress) report(r *proxy.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handles.sent.Add(since(&p.sent, r.BytesSent))
	p.handles.received.Add(since(&p.received, r.BytesReceived))
}

// since is how much total has grown, never less than nothing.
func since(last *uint64, total uint64) float64 {
	if total <= *last {
		return 0
	}
	grown := total - *last
	*last = total
	return float64(grown)
}

// Ended implements proxy.Observer.
func (o *Observer) Ended(r *proxy.Record) {
	switch r.Kind {
	case proxy.KindRequest:
		o.request(r)
		if r.Request != nil {
			o.shadows(r.Request.Shadows)
		}
	case proxy.KindConnection:
		if r.Flags&l7.FlagUpstreamConnectionFailure != 0 {
			r.Flags |= l7.FlagUpstreamRetryLimit // as Envoy, which gives up when its attempts are over, be it one
		}
		o.connectionEnded(r)
		if r.Chain != nil && r.Conn != nil && r.Chain.HTTP == nil {
			o.shadows(r.Chain.Shadows(r.Conn))
		}
	}
	if o.log != nil {
		o.log.Write(r)
	}
}

func (o *Observer) request(r *proxy.Record) {
	if said := o.rulesOf(r); said != nil {
		o.countRequest(r, said)
		return
	}
	o.requestHandles(r).count(r)
}

func (h *requestHandles) count(r *proxy.Record) {
	h.requests.Inc()
	h.duration.Observe(float64(r.Duration.Microseconds()) / 1000)
	h.requestBytes.Observe(float64(r.BytesReceived))
	h.responseBytes.Observe(float64(r.BytesSent))
	if r.GRPC && h.requestMessages != nil {
		h.requestMessages.Add(float64(r.RequestMessages))
		h.responseMessages.Add(float64(r.ResponseMessages))
	}
}

// connectionEnded counts the last bytes. A connection that was never opened to a host counts as one that opened and closed, as
// with Envoy; its flags tell why.
func (o *Observer) connectionEnded(r *proxy.Record) {
	handles := o.connection(r)
	if p, ok := o.open.LoadAndDelete(r.ConnectionID); ok {
		p.(*progress).report(r)
	} else {
		handles.opened.Inc()
		(&progress{handles: handles}).report(r)
	}
	handles.closed.Inc()
}

func (o *Observer) requestHandles(r *proxy.Record) *requestHandles {
	k := keyOf(r)
	if h, ok := o.requests.Load(k); ok {
		return h.(*requestHandles)
	}
	k = o.admit(k)
	if h, ok := o.requests.Load(k); ok { // what is left of many
		return h.(*requestHandles)
	}
	values := o.self.values(k, r.Cluster)
	h := o.metrics.request(values)
	if k.grpc {
		o.metrics.messages(h, values)
	}
	stored, _ := o.requests.LoadOrStore(k, h)
	return stored.(*requestHandles)
}

func (o *Observer) connection(r *proxy.Record) *connectionHandles {
	if said := o.rulesOf(r); said != nil {
		return o.ruledConnection(r, said)
	}
	k := keyOf(r)
	if h, ok := o.tcp.Load(k); ok {
		return h.(*connectionHandles)
	}
	k = o.admit(k)
	if h, ok := o.tcp.Load(k); ok {
		return h.(*connectionHandles)
	}
	stored, _ := o.tcp.LoadOrStore(k, o.metrics.connection(o.self.values(k, r.Cluster)))
	return stored.(*connectionHandles)
}

// admit makes a new key safe to keep. When there are too many it takes away what clients choose.
func (o *Observer) admit(k key) key {
	if o.sets.Add(1) <= maxLabelSets {
		return k.clone()
	}
	o.metrics.overflow.Inc()
	k.source, k.identity, k.workload, k.hostIdentity = key{}.source, "", "", ""
	return k.clone()
}
