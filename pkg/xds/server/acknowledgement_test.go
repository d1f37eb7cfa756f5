package server

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

func requests() map[string]*discovery.DeltaDiscoveryRequest {
	const typeURL, nonce = "type.googleapis.com/istio.workload.Address", "17"
	return map[string]*discovery.DeltaDiscoveryRequest{
		"acknowledgement": {TypeUrl: typeURL, ResponseNonce: nonce},
		"without a nonce": {TypeUrl: typeURL},
		"empty":           {},
		"first":           {TypeUrl: typeURL, Node: &corev3.Node{Id: "a"}},
		"subscribes":      {TypeUrl: typeURL, ResponseNonce: nonce, ResourceNamesSubscribe: []string{"a"}},
		"unsubscribes":    {TypeUrl: typeURL, ResponseNonce: nonce, ResourceNamesUnsubscribe: []string{"a"}},
		"rejects":         {TypeUrl: typeURL, ResponseNonce: nonce, ErrorDetail: &statuspb.Status{Message: "bad"}},
		"comes back":      {TypeUrl: typeURL, InitialResourceVersions: map[string]string{"a": "1"}},
	}
}

func TestAcknowledgementsAreDecodedByThemselves(t *testing.T) {
	only := map[string]bool{"acknowledgement": true, "without a nonce": true, "empty": true}
	for name, want := range requests() {
		b, err := proto.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got discovery.DeltaDiscoveryRequest
		if is := acknowledgement(b, &got); is != only[name] {
			t.Errorf("%s: %v", name, is)
		}
		if !only[name] && !proto.Equal(&got, &discovery.DeltaDiscoveryRequest{}) {
			t.Errorf("%s: it is changed", name)
		}
		// In one piece, and in several as a large message comes.
		for _, data := range []mem.BufferSlice{{mem.SliceBuffer(b)}, {mem.SliceBuffer(b[:len(b)/2]), mem.SliceBuffer(b[len(b)/2:])}} {
			got := discovery.DeltaDiscoveryRequest{TypeUrl: "before", ResponseNonce: "before"}
			if err := newCodec().Unmarshal(data, &got); err != nil || !proto.Equal(&got, want) {
				t.Errorf("%s: %v, %v; want %v", name, &got, err, want)
			}
		}
	}
}

// FuzzAcknowledgement compares with the usual decoder.
func FuzzAcknowledgement(f *testing.F) {
	for _, r := range requests() {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{requestTypeURL<<3 | 2, 1, 0xff})           // not UTF-8
	f.Add([]byte{requestTypeURL<<3 | 2, 5, 'a'})            // too short
	f.Add([]byte{requestNonce << 3, 1})                     // not a string
	f.Add([]byte{requestNonce<<3 | 3, requestNonce<<3 | 4}) // a group
	f.Fuzz(func(t *testing.T, b []byte) {
		var got, want discovery.DeltaDiscoveryRequest
		if !acknowledgement(b, &got) {
			return
		}
		if err := proto.Unmarshal(b, &want); err != nil || !proto.Equal(&got, &want) {
			t.Fatalf("%v, the usual decoder: %v, %v", &got, &want, err)
		}
	})
}
