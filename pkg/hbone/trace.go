package hbone

import (
	"crypto/rand"
	"encoding/hex"
)

// NewTraceparent returns a fresh W3C traceparent value with random ids and the "not sampled" flag.
func NewTraceparent() string {
	var raw [24]byte
	rand.Read(raw[:]) // never fails
	out := make([]byte, 0, 55)
	out = append(out, "00-"...)
	out = hex.AppendEncode(out, raw[:16])
	out = append(out, '-')
	out = hex.AppendEncode(out, raw[16:])
	return string(append(out, "-00"...))
}
