package main

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // what frames wraps
	"google.golang.org/grpc/mem"
)

// frame is a message as it is on the wire.
type frame struct{ data []byte }

// frames is a codec that leaves frames as they are.
type frames struct{ encoding.CodecV2 }

func newFrames() encoding.CodecV2 { return frames{encoding.GetCodecV2("proto")} }

func (c frames) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		return mem.BufferSlice{mem.SliceBuffer(f.data)}, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c frames) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*frame); ok {
		f.data = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

func bidi() *grpc.StreamDesc { return &grpc.StreamDesc{ServerStreams: true, ClientStreams: true} }
