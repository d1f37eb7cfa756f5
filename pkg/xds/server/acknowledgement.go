package server

import (
	"unicode/utf8"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of DeltaDiscoveryRequest.
const (
	requestTypeURL = 2
	requestNonce   = 6
)

// acknowledgement decodes a request that is one and nothing else: a type and a nonce. There is one for every response to every client,
// and nearly all requests are such. It returns false for any other, also for what is not valid, and has then left r alone.
func acknowledgement(b []byte, r *discovery.DeltaDiscoveryRequest) bool {
	var typeURL, nonce []byte
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 || kind != protowire.BytesType {
			return false
		}
		b = b[n:]
		value, n := protowire.ConsumeBytes(b)
		if n < 0 || !utf8.Valid(value) {
			return false
		}
		b = b[n:]
		switch field {
		case requestTypeURL:
			typeURL = value
		case requestNonce:
			nonce = value
		default:
			return false
		}
	}
	r.TypeUrl, r.ResponseNonce = string(typeURL), string(nonce)
	return true
}
