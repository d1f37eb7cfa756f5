package server

import (
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec of whatever is not pre-encoded
	"google.golang.org/grpc/mem"
)

// encoded is a message that is already serialized, in parts; parts may be shared with other streams.
type encoded struct{ parts mem.BufferSlice }

// newEncoded wraps parts that will never be modified. Their memory is not pooled: gRPC's reference counting is a no-op.
func newEncoded(parts ...[]byte) *encoded {
	e := &encoded{parts: make(mem.BufferSlice, len(parts))}
	for i, p := range parts {
		e.parts[i] = mem.SliceBuffer(p)
	}
	return e
}

// codec is protobuf, except that encoded messages pass as they are, and acknowledgements are decoded without reflection.
type codec struct{ encoding.CodecV2 }

func newCodec() encoding.CodecV2 { return codec{encoding.GetCodecV2("proto")} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(*encoded); ok {
		return e.parts, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*discovery.DeltaDiscoveryRequest); ok && len(data) == 1 {
		r.Reset()
		if acknowledgement(data[0].ReadOnlyData(), r) {
			return nil
		}
	}
	return c.CodecV2.Unmarshal(data, v)
}
