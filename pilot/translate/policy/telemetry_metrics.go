package policy

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/structpb"
	telemetryapi "istio.io/api/telemetry/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pkg/expr"
)

// prometheusProvider is the provider of metrics that exists without being configured.
const prometheusProvider = "prometheus"

// metric is what is said of one.
type metric struct {
	disabled bool
	tags     map[string]string // expressions; "" takes the tag away
}

// metrics merges what the levels say: for each metric, whether it is made, and its tags. It becomes
// {"metrics": {"istio_requests_total": {"disabled": true}, …}}, with tags as {"tags": {NAME: EXPRESSION or null}}.
func (t *telemetry) metrics(levels []*telemetryapi.Telemetry) *structpb.Struct {
	all := map[string]*metric{}
	var interval float64
	for _, level := range levels {
		for _, m := range level.GetMetrics() {
			if !t.prometheus(m) {
				continue
			}
			if d := m.GetReportingInterval(); d != nil {
				interval = d.AsDuration().Seconds()
			}
			for _, o := range m.GetOverrides() {
				if !t.matches(o.GetMatch().GetMode()) || o.GetMatch().GetCustomMetric() != "" {
					continue
				}
				for _, name := range metricNames(o.GetMatch().GetMetric()) {
					apply(all, name, o)
				}
			}
		}
	}
	out := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if v := all[name].value(); len(v.GetFields()) > 0 {
			out.Fields[name] = structpb.NewStructValue(v)
		}
	}
	if len(out.Fields) == 0 && interval == 0 {
		return nil
	}
	said := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	if len(out.Fields) > 0 {
		said.Fields["metrics"] = structpb.NewStructValue(out)
	}
	if interval > 0 {
		said.Fields["reporting_interval_seconds"] = structpb.NewNumberValue(interval)
	}
	return said
}

// prometheus is whether what is said is about metrics for Prometheus: there are no others.
func (t *telemetry) prometheus(m *telemetryapi.Metrics) bool {
	names := providerNames(m.GetProviders())
	return len(names) == 0 || slices.ContainsFunc(names, func(name string) bool {
		return name == prometheusProvider || t.provider(name).GetPrometheus() != nil
	})
}

func apply(all map[string]*metric, name string, o *telemetryapi.MetricsOverrides) {
	m := all[name]
	if m == nil {
		m = &metric{tags: map[string]string{}}
		all[name] = m
	}
	if o.GetDisabled() != nil {
		m.disabled = o.GetDisabled().GetValue()
	}
	for tag, change := range o.GetTagOverrides() {
		switch change.GetOperation() {
		case telemetryapi.MetricsOverrides_TagOverride_UPSERT:
			if _, err := expr.Compile(change.GetValue()); err == nil { // else the object's condition says so
				m.tags[tag] = change.GetValue()
			}
		case telemetryapi.MetricsOverrides_TagOverride_REMOVE:
			m.tags[tag] = ""
		}
	}
}

func (m *metric) value() *structpb.Struct {
	out := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	if m.disabled {
		out.Fields["disabled"] = structpb.NewBoolValue(true)
		return out
	}
	if len(m.tags) == 0 {
		return out
	}
	tags := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for name, expression := range m.tags {
		if tags.Fields[name] = structpb.NewNullValue(); expression != "" {
			tags.Fields[name] = structpb.NewStringValue(expression)
		}
	}
	out.Fields["tags"] = structpb.NewStructValue(tags)
	return out
}

func metricNames(m telemetryapi.MetricSelector_IstioMetric) []string {
	switch m {
	case telemetryapi.MetricSelector_REQUEST_COUNT:
		return []string{"istio_requests_total"}
	case telemetryapi.MetricSelector_REQUEST_DURATION:
		return []string{"istio_request_duration_milliseconds"}
	case telemetryapi.MetricSelector_REQUEST_SIZE:
		return []string{"istio_request_bytes"}
	case telemetryapi.MetricSelector_RESPONSE_SIZE:
		return []string{"istio_response_bytes"}
	case telemetryapi.MetricSelector_TCP_OPENED_CONNECTIONS:
		return []string{"istio_tcp_connections_opened_total"}
	case telemetryapi.MetricSelector_TCP_CLOSED_CONNECTIONS:
		return []string{"istio_tcp_connections_closed_total"}
	case telemetryapi.MetricSelector_TCP_SENT_BYTES:
		return []string{"istio_tcp_sent_bytes_total"}
	case telemetryapi.MetricSelector_TCP_RECEIVED_BYTES:
		return []string{"istio_tcp_received_bytes_total"}
	case telemetryapi.MetricSelector_GRPC_REQUEST_MESSAGES:
		return []string{"istio_request_messages_total"}
	case telemetryapi.MetricSelector_GRPC_RESPONSE_MESSAGES:
		return []string{"istio_response_messages_total"}
	case telemetryapi.MetricSelector_ALL_METRICS:
	}
	var all []string
	for n := range telemetryapi.MetricSelector_IstioMetric_name {
		if m := telemetryapi.MetricSelector_IstioMetric(n); m != telemetryapi.MetricSelector_ALL_METRICS {
			all = append(all, metricNames(m)...)
		}
	}
	return all
}
