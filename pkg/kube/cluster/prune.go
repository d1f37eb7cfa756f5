package cluster

import (
	"bytes"
	"fmt"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// pruner says what to decode of a protobuf message: those listed, by number, of which nil is whole; and, with the rest, all others.
// What strip removes is left out here, where that is most of an object, so that it is not decoded at all.
type pruner struct {
	of   map[protowire.Number]*pruner
	rest bool
}

func only(of map[protowire.Number]*pruner) *pruner { return &pruner{of: of} }

// pruning returns what to decode by kind, of a list as well as of one object.
func pruning() map[string]*pruner {
	// name, namespace, UID, resource version, generation, creation, deletion, labels, annotations, owners
	meta := only(map[protowire.Number]*pruner{1: nil, 3: nil, 5: nil, 6: nil, 7: nil, 8: nil, 9: nil, 11: nil, 12: nil, 13: nil})
	condition := only(map[protowire.Number]*pruner{1: nil, 2: nil})                       // type, status
	container := only(map[protowire.Number]*pruner{1: nil, 6: nil, 24: nil})              // name, ports, restart policy
	owned := func(f map[protowire.Number]*pruner) *pruner { f[1] = meta; return only(f) } // an object of these fields
	objects := map[string]*pruner{
		"Pod": owned(map[protowire.Number]*pruner{
			// containers, service account, node, host network, init containers
			2: only(map[protowire.Number]*pruner{2: container, 8: nil, 10: nil, 11: nil, 20: container}),
			// phase, conditions, address, states of init containers, addresses
			3: only(map[protowire.Number]*pruner{1: nil, 2: condition, 6: nil, 10: nil, 12: nil}),
		}),
		"Node": owned(map[protowire.Number]*pruner{
			2: only(map[protowire.Number]*pruner{5: nil}),               // taints
			3: only(map[protowire.Number]*pruner{4: condition, 5: nil}), // conditions, addresses
		}),
		"EndpointSlice": {of: map[protowire.Number]*pruner{1: meta}, rest: true},
		"Service":       {of: map[protowire.Number]*pruner{1: meta}, rest: true},
		"Namespace":     {of: map[protowire.Number]*pruner{1: meta}, rest: true},
	}
	for kind, f := range objects {
		objects[kind+"List"] = only(map[protowire.Number]*pruner{1: nil, 2: f}) // metadata, items
	}
	return objects
}

// append copies what is to be decoded of message to out.
func (f *pruner) append(out, message []byte) ([]byte, error) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		size := protowire.ConsumeFieldValue(number, kind, message[n:])
		if size < 0 {
			return nil, protowire.ParseError(size)
		}
		field := message[:n+size]
		message = message[n+size:]
		inner, listed := f.of[number]
		switch {
		case listed && inner != nil && kind == protowire.BytesType:
			value, _ := protowire.ConsumeBytes(field[n:])
			var err error
			if out, err = inner.appendNested(out, number, value); err != nil {
				return nil, err
			}
		case listed || f.rest:
			out = append(out, field...)
		}
	}
	return out, nil
}

// appendNested writes the length with a fixed number of bytes, because it is known only behind the message.
func (f *pruner) appendNested(out []byte, number protowire.Number, value []byte) ([]byte, error) {
	const lengthBytes = 4
	out = protowire.AppendTag(out, number, protowire.BytesType)
	at := len(out)
	out = append(out, make([]byte, lengthBytes)...)
	out, err := f.append(out, value)
	if err != nil {
		return nil, err
	}
	length := len(out) - at - lengthBytes
	if length >= 1<<(7*lengthBytes) {
		return nil, fmt.Errorf("field %d is too large", number)
	}
	for i := range lengthBytes {
		out[at+i] = byte(length>>(7*i)) & 0x7f
		if i < lengthBytes-1 {
			out[at+i] |= 0x80
		}
	}
	return out, nil
}

// prunedCodecs decode of the kinds of Kubernetes what the mesh reads.
type prunedCodecs struct {
	runtime.NegotiatedSerializer
	scheme *runtime.Scheme
	kinds  map[string]*pruner
	pool   *sync.Pool // of *[]byte
}

func newPrunedCodecs(scheme *runtime.Scheme, codecs runtime.NegotiatedSerializer) prunedCodecs {
	return prunedCodecs{NegotiatedSerializer: codecs, scheme: scheme, kinds: pruning(), pool: &sync.Pool{New: func() any { return new([]byte) }}}
}

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (c prunedCodecs) SupportedMediaTypes() []runtime.SerializerInfo {
	return streamed(c.NegotiatedSerializer.SupportedMediaTypes())
}

// DecoderToVersion implements runtime.NegotiatedSerializer.
func (c prunedCodecs) DecoderToVersion(d runtime.Decoder, gv runtime.GroupVersioner) runtime.Decoder {
	return prunedDecoder{Decoder: c.NegotiatedSerializer.DecoderToVersion(d, gv), codecs: c}
}

// prunedDecoder is a decoder of JSON or protobuf. It looks at what it gets.
type prunedDecoder struct {
	runtime.Decoder
	codecs prunedCodecs
}

// protobufPrefix is what an object in protobuf starts with; an envelope follows, of type and content.
const protobufPrefix = "k8s\x00"

// Decode implements runtime.Decoder.
func (d prunedDecoder) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if into != nil || !bytes.HasPrefix(data, []byte(protobufPrefix)) {
		return d.Decoder.Decode(data, defaults, into)
	}
	gvk, raw := envelope(data[len(protobufPrefix):])
	prune := d.codecs.kinds[gvk.Kind]
	if prune == nil {
		return d.Decoder.Decode(data, defaults, into)
	}
	object, err := d.codecs.scheme.New(gvk)
	if err != nil {
		return nil, &gvk, err
	}
	message, ok := object.(interface{ Unmarshal([]byte) error })
	if !ok {
		return nil, &gvk, fmt.Errorf("%T is not decoded from protobuf", object)
	}
	scratch := d.codecs.pool.Get().(*[]byte)
	defer d.codecs.pool.Put(scratch)
	kept, err := prune.append((*scratch)[:0], raw)
	if err != nil {
		return nil, &gvk, fmt.Errorf("decode a %s: %w", gvk.Kind, err)
	}
	if cap(kept) <= 1<<20 {
		*scratch = kept // but not that of a list
	}
	if err := message.Unmarshal(kept); err != nil {
		return nil, &gvk, fmt.Errorf("decode a %s: %w", gvk.Kind, err)
	}
	return object, &gvk, nil
}

// envelope returns the type and the content. What cannot be read has no kind.
func envelope(data []byte) (gvk schema.GroupVersionKind, raw []byte) {
	var apiVersion, kind, meta []byte
	encoded := false
	err := walk(data, func(number protowire.Number, value []byte) {
		switch number {
		case 1:
			meta = value
		case 2:
			raw = value
		case 3:
			encoded = len(value) > 0
		}
	})
	if err == nil {
		err = walk(meta, func(number protowire.Number, value []byte) {
			switch number {
			case 1:
				apiVersion = value
			case 2:
				kind = value
			}
		})
	}
	if err != nil || encoded {
		return schema.GroupVersionKind{}, nil
	}
	return schema.FromAPIVersionAndKind(string(apiVersion), string(kind)), raw
}

// walk calls found with each field that has a length.
func walk(message []byte, found func(number protowire.Number, value []byte)) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		size := protowire.ConsumeFieldValue(number, kind, message[n:])
		if size < 0 {
			return protowire.ParseError(size)
		}
		if kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(message[n:])
			found(number, value)
		}
		message = message[n+size:]
	}
	return nil
}
