package route

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// add gives the options in Envoy's order: what is set overwrites, what is added comes after it.
func (o HeaderOps) add() []*corev3.HeaderValueOption {
	var out []*corev3.HeaderValueOption
	for _, h := range o.Set {
		out = append(out, option(h, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD))
	}
	for _, h := range o.Add {
		out = append(out, option(h, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD))
	}
	return out
}

// option leaves it to the proxy to drop a header that comes to nothing.
func option(h Header, action corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: h.Name, Value: h.Value},
		AppendAction: action,
	}
}

// Then gives the operations of both, those of next after those of o.
func (o HeaderOps) Then(next HeaderOps) HeaderOps {
	return HeaderOps{
		Set:    join(o.Set, next.Set),
		Add:    join(o.Add, next.Add),
		Remove: join(o.Remove, next.Remove),
	}
}

func join[T any](a, b []T) []T {
	if len(b) == 0 {
		return a
	}
	return append(a[:len(a):len(a)], b...)
}
