package spans

import (
	"fmt"
	"strconv"
	"strings"

	tagv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/accesslog"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/tracing"
)

// tag is a custom one: one of its values is set.
type tag struct {
	name, literal    string
	header, fallback string
	format           *accesslog.Format
}

func compileTags(c *tracing.Config, environment func(string) (string, bool)) ([]tag, error) {
	var out []tag
	for _, p := range c.Tags {
		t := tag{name: p.GetTag()}
		switch kind := p.GetType().(type) {
		case *tagv3.CustomTag_Literal_:
			t.literal = kind.Literal.GetValue()
		case *tagv3.CustomTag_Environment_:
			t.literal = kind.Environment.GetDefaultValue()
			if environment != nil {
				if v, ok := environment(kind.Environment.GetName()); ok {
					t.literal = v
				}
			}
		case *tagv3.CustomTag_RequestHeader:
			t.header, t.fallback = strings.ToLower(kind.RequestHeader.GetName()), kind.RequestHeader.GetDefaultValue()
		case *tagv3.CustomTag_Value:
			var err error
			if t.format, err = accesslog.CompileFormat(kind.Value); err != nil {
				return nil, fmt.Errorf("custom_tags %q: %w", t.name, err)
			}
		default:
			return nil, fmt.Errorf("custom_tags %q: this type is not supported", t.name)
		}
		out = append(out, t)
	}
	return out, nil
}

// value is empty for a tag that is left out.
func (t *tag) value(r *proxy.Record, scratch []byte) (text string, buf []byte) {
	switch {
	case t.format != nil:
		scratch = t.format.AppendTo(scratch[:0], r)
		return string(scratch), scratch
	case t.header == "":
		return t.literal, scratch
	}
	if r.Request != nil && r.Request.Head != nil {
		if v, ok := exchange.First(r.Request.Head, t.header); ok {
			return v, scratch
		}
	}
	return t.fallback, scratch
}

// view is what a span is made of.
type view struct {
	r      *proxy.Record
	span   *tracing.Span
	tags   []tag
	config *Config
}

// each calls add with the tags that Envoy's spans have, then with the custom ones.
func (v *view) each(add func(key, value string)) {
	r := v.r
	add("node_id", v.config.Node)
	if v.config.Zone != "" {
		add("zone", v.config.Zone)
	}
	h := &r.Request.Head.Header
	if r.Request.ID != "" {
		add("guid:x-request-id", r.Request.ID)
	}
	add("http.url", v.url())
	add("http.method", r.Method)
	add("downstream_cluster", orDash(h.Value("x-envoy-downstream-service-cluster")))
	add("user_agent", orDash(h.Value("user-agent")))
	add("http.protocol", r.Protocol.String())
	if r.Conn != nil && r.Conn.Source.IsValid() {
		add("peer.address", r.Conn.Source.Addr().String())
	}
	if id, ok := h.Get("x-client-trace-id"); ok {
		add("guid:x-client-trace-id", id)
	}
	if r.GRPC {
		v.grpc(add)
	}
	add("request_size", strconv.FormatUint(r.BytesReceived, 10))
	add("response_size", strconv.FormatUint(r.BytesSent, 10))
	add("component", "proxy")
	if r.Cluster != nil {
		add("upstream_cluster", r.ClusterName)
		name := r.ClusterName
		if r.Cluster.StatName != "" {
			name = r.Cluster.StatName
		}
		add("upstream_cluster.name", name)
	}
	add("http.status_code", strconv.Itoa(r.Status))
	add("response_flags", r.Flags.String())
	if v.failed() {
		add("error", "true")
	}
	var scratch []byte
	for i := range v.tags {
		var value string
		if value, scratch = v.tags[i].value(r, scratch); value != "" {
			add(v.tags[i].name, value)
		}
	}
}

func (v *view) grpc(add func(key, value string)) {
	r, h := v.r, &v.r.Request.Head.Header
	add("grpc.path", r.Path)
	add("grpc.authority", r.Authority)
	add("grpc.content_type", h.Value("content-type"))
	if limit, ok := h.Get("grpc-timeout"); ok {
		add("grpc.timeout", limit)
	}
	if r.GRPCStatus >= 0 {
		add("grpc.status_code", strconv.Itoa(r.GRPCStatus))
	}
}

// failed is whether the answer was none, or a failure of a server.
func (v *view) failed() bool {
	r := v.r
	switch {
	case r.Status == 0 || r.Status >= 500:
		return true
	case r.GRPC:
		switch r.GRPCStatus { // those that are a server's fault
		case 1, 2, 4, 8, 10, 12, 13, 14, 15:
			return true
		}
	}
	return false
}

func (v *view) url() string {
	r := v.r
	h := &r.Request.Head.Header
	path := h.Value("x-envoy-original-path")
	if path == "" {
		path = r.Request.Head.Path
	}
	if limit := v.span.Config.PathLimit; len(path) > limit {
		path = path[:limit]
	}
	return h.Value("x-forwarded-proto") + "://" + r.Request.Head.Authority + path
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
