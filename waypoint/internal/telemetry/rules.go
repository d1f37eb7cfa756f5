package telemetry

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/pkg/expr"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/attributes"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// rules are what a chain says of metrics. They are immutable.
type rules struct {
	byMetric map[string]*rule
	// expressions of all tags, each once.
	expressions []*expr.Program
}

// rule is about one metric.
type rule struct {
	disabled bool
	remove   map[string]bool
	// set are the tags with values of their own, by name: indexes of expressions.
	set map[string]int
}

// Check is whether what a listener's chains say of metrics can be done. The error names the chain and the tag.
func Check(l *l7.Listener) error {
	chains := l.Chains
	if l.Default != nil {
		chains = append(slices.Clone(chains), l.Default)
	}
	for _, ch := range chains {
		if _, err := compileRules(ch.Told); err != nil {
			return fmt.Errorf("filter chain %q: metadata: %w", ch.Name, err)
		}
	}
	return nil
}

// compileRules returns nil for what says nothing.
func compileRules(told *structpb.Struct) (*rules, error) {
	metrics := told.GetFields()["metrics"].GetStructValue().GetFields()
	if len(metrics) == 0 {
		return nil, nil
	}
	out := &rules{byMetric: map[string]*rule{}}
	known := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(metrics)) {
		said := metrics[name].GetStructValue().GetFields()
		r := &rule{disabled: said["disabled"].GetBoolValue(), remove: map[string]bool{}, set: map[string]int{}}
		tags := said["tags"].GetStructValue().GetFields()
		for _, tag := range slices.Sorted(maps.Keys(tags)) {
			text := tags[tag].GetStringValue()
			if text == "" {
				r.remove[tag] = true
				continue
			}
			at, seen := known[text]
			if !seen {
				program, err := expr.Compile(text)
				if err != nil {
					return nil, fmt.Errorf("metrics.%s.tags.%s: the expression %q: %w", name, tag, text, err)
				}
				at = len(out.expressions)
				known[text] = at
				out.expressions = append(out.expressions, program)
			}
			r.set[tag] = at
		}
		out.byMetric[name] = r
	}
	return out, nil
}

// ruledKey identifies a combination of labels where there are rules: values are those of the expressions, joined.
type ruledKey struct {
	key
	rules  *rules
	values string
}

// rulesOf are those of the record's chain; nil is none.
func (o *Observer) rulesOf(r *proxy.Record) *rules {
	if r.Chain == nil || r.Chain.Told == nil {
		return nil
	}
	if known, ok := o.rules.Load(r.Chain.Told); ok {
		return known.(*rules)
	}
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.Chain.Told)
	if err != nil {
		return nil
	}
	compiled, ok := o.contents.Load(string(content))
	if !ok {
		said, err := compileRules(r.Chain.Told)
		if err != nil {
			said = nil // Check refused it before it came here
		}
		compiled, _ = o.contents.LoadOrStore(string(content), said) // the same for equal ones, as series depend on it
	}
	o.rules.Store(r.Chain.Told, compiled)
	return compiled.(*rules)
}

// Forget drops what is kept for chains that no longer serve. Call it when listeners have changed.
func (o *Observer) Forget() { o.rules.Clear() }

// ruled finds the key of a record, and the values of the expressions.
func (o *Observer) ruled(r *proxy.Record, said *rules) (ruledKey, []string) {
	values := make([]string, len(said.expressions))
	for i, e := range said.expressions {
		text, ok := e.Text(attributes.Of{Record: r})
		if !ok {
			text = unknown
		}
		values[i] = strings.ToValidUTF8(text, "\uFFFD")
	}
	return ruledKey{keyOf(r), said, strings.Join(values, "\x00")}, values
}

// admitRuled is admit, for a key with values that anybody may choose.
func (o *Observer) admitRuled(k ruledKey, values []string) ruledKey {
	if o.sets.Load() >= maxLabelSets {
		for i := range values {
			values[i] = unknown
		}
		k.values = ""
	}
	k.key = o.admit(k.key)
	return k
}

// countRequest counts where there are rules.
func (o *Observer) countRequest(r *proxy.Record, said *rules) {
	k, values := o.ruled(r, said)
	found, ok := o.ruledRequests.Load(k)
	if !ok {
		k = o.admitRuled(k, values)
		c := combination{append(labelNames(), httpNames()...), o.self.values(k.key, r.Cluster), said, values}
		h := &requestHandles{
			requests:      o.metrics.ruledCounter("istio_requests_total", c),
			duration:      o.metrics.ruledHistogram("istio_request_duration_milliseconds", c),
			requestBytes:  o.metrics.ruledHistogram("istio_request_bytes", c),
			responseBytes: o.metrics.ruledHistogram("istio_response_bytes", c),
		}
		if k.grpc {
			h.requestMessages = o.metrics.ruledCounter("istio_request_messages_total", c)
			h.responseMessages = o.metrics.ruledCounter("istio_response_messages_total", c)
		}
		found, _ = o.ruledRequests.LoadOrStore(k, h)
	}
	found.(*requestHandles).count(r)
}

// ruledConnection finds the handles of a connection where there are rules.
func (o *Observer) ruledConnection(r *proxy.Record, said *rules) *connectionHandles {
	k, values := o.ruled(r, said)
	if found, ok := o.ruledTCP.Load(k); ok {
		return found.(*connectionHandles)
	}
	k = o.admitRuled(k, values)
	c := combination{labelNames(), o.self.values(k.key, r.Cluster), said, values}
	counter := func(name string) counter { return o.metrics.ruledCounter(name, c) }
	stored, _ := o.ruledTCP.LoadOrStore(k, &connectionHandles{
		opened: counter("istio_tcp_connections_opened_total"), closed: counter("istio_tcp_connections_closed_total"),
		sent: counter("istio_tcp_sent_bytes_total"), received: counter("istio_tcp_received_bytes_total"),
	})
	return stored.(*connectionHandles)
}
