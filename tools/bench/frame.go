package bench

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // what frames wraps
	"google.golang.org/grpc/mem"
)

// Frame is a message as it is on the wire. It is not decoded, so that many clients cost little beside the server they share a machine
// with.
type Frame struct{ Data []byte }

// frames is a codec that leaves frames as they are.
type frames struct{ encoding.CodecV2 }

// NewFrames returns a codec that takes *Frame besides protobuf messages.
func NewFrames() encoding.CodecV2 { return frames{encoding.GetCodecV2("proto")} }

func (c frames) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*Frame); ok {
		return mem.BufferSlice{mem.SliceBuffer(f.Data)}, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c frames) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*Frame); ok {
		f.Data = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// Bidi describes a stream in both directions.
func Bidi() *grpc.StreamDesc { return &grpc.StreamDesc{ServerStreams: true, ClientStreams: true} }
