package accesslog

import (
	"errors"
	"fmt"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	celfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"

	"github.com/isthmus-mesh/isthmus/pkg/expr"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/attributes"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/peers"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
)

// expressionFilter logs what an expression is true of.
func expressionFilter(p *accesslogv3.ExtensionFilter) (filter, error) {
	m, err := p.GetTypedConfig().UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	cel, ok := m.(*celfilterv3.ExpressionFilter)
	if !ok {
		return nil, fmt.Errorf("filter: %s is not supported", m.ProtoReflect().Descriptor().FullName())
	}
	program, err := expr.Compile(cel.GetExpression())
	if err != nil {
		return nil, fmt.Errorf("filter: the expression %q: %w", cel.GetExpression(), err)
	}
	return func(r *proxy.Record) bool { return program.True(attributes.Of{Record: r}) }, nil
}

// expression shows the value of one.
func expression(params string) (appender, error) {
	if params == "" {
		return nil, errors.New("want an expression")
	}
	program, err := expr.Compile(params)
	if err != nil {
		return nil, err
	}
	return func(dst []byte, r *proxy.Record) ([]byte, bool) {
		text, ok := program.Text(attributes.Of{Record: r})
		return append(dst, text...), ok
	}, nil
}

func traceID(dst []byte, r *proxy.Record) ([]byte, bool) {
	if r.Decision == nil || r.Decision.Span == nil || r.Decision.Span.Lost {
		return dst, false
	}
	return r.Decision.Span.AppendTrace(dst), true
}

// peerField shows who an end is. Other objects have no fields.
func peerField(key, name string) appender {
	return func(dst []byte, r *proxy.Record) ([]byte, bool) {
		value := ""
		switch key {
		case "downstream_peer":
			value = peers.Downstream(r).Field(name)
		case "upstream_peer":
			value = peers.Upstream(r).Field(name)
		}
		return append(dst, value...), value != ""
	}
}
