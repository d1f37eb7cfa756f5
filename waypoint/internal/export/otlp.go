package export

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// The messages of OTLP are written field by field: there are few, and spans are made on the goroutines that serve.

// Number is that of a field.
type Number = protowire.Number

// AppendBytes appends a field of bytes, text or a message that is ready.
func AppendBytes[T string | []byte](dst []byte, field protowire.Number, v T) []byte {
	dst = protowire.AppendTag(dst, field, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(len(v)))
	return append(dst, v...)
}

// AppendFixed64 appends a field of eight bytes.
func AppendFixed64(dst []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(dst, field, protowire.Fixed64Type), v)
}

// AppendFixed32 appends a field of four bytes.
func AppendFixed32(dst []byte, field protowire.Number, v uint32) []byte {
	return protowire.AppendFixed32(protowire.AppendTag(dst, field, protowire.Fixed32Type), v)
}

// AppendVarint appends a number, or a value of an enumeration.
func AppendVarint(dst []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), v)
}

// AppendAttribute appends a KeyValue with text.
func AppendAttribute[T string | []byte](dst []byte, field protowire.Number, key string, value T) []byte {
	text := protowire.SizeTag(1) + protowire.SizeBytes(len(value))
	dst = protowire.AppendTag(dst, field, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(protowire.SizeTag(1)+protowire.SizeBytes(len(key))+protowire.SizeTag(2)+protowire.SizeBytes(text)))
	dst = AppendBytes(dst, 1, key)
	dst = protowire.AppendTag(dst, 2, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(text))
	return AppendBytes(dst, 1, value)
}

// Attribute is a name and a text.
type Attribute struct{ Key, Value string }

// OTLP is the encoding of requests of the collector's services for traces and for logs, which have one shape: a resource, a scope,
// and the records, each with its tag and length.
func OTLP(grpc bool, resource []Attribute, scope, version string) Encoding {
	var described []byte
	for _, a := range resource {
		described = AppendAttribute(described, 1, a.Key, a.Value)
	}
	var name []byte
	if scope != "" {
		name = AppendBytes(AppendBytes(nil, 1, scope), 2, version)
	}
	contentType := "application/x-protobuf"
	if grpc {
		contentType = "application/grpc"
	}
	return Encoding{GRPC: grpc, ContentType: contentType, Wrap: func(records []byte) []byte {
		scoped := make([]byte, 0, len(records)+len(name)+16)
		if name != nil {
			scoped = AppendBytes(scoped, 1, name)
		}
		scoped = append(scoped, records...)
		of := make([]byte, 0, len(scoped)+len(described)+32)
		of = AppendBytes(of, 1, described)
		of = AppendBytes(of, 2, scoped)
		return AppendBytes(make([]byte, 0, len(of)+16), 1, of)
	}}
}

// JSON is an array of records.
func JSON() Encoding {
	return Encoding{ContentType: "application/json", Separator: ",", Wrap: func(records []byte) []byte {
		out := make([]byte, 0, len(records)+2)
		return append(append(append(out, '['), records...), ']')
	}}
}
