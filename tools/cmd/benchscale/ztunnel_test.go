package main

import (
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestTheNonceIsFound(t *testing.T) {
	m, err := proto.Marshal(&discovery.DeltaDiscoveryResponse{
		Resources: []*discovery.Resource{{Name: "a", Resource: &anypb.Any{TypeUrl: addressType, Value: []byte(markerPrefix)}}},
		TypeUrl:   addressType, Nonce: "n-1", RemovedResources: []string{"b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if nonce, err := nonceOf(m); err != nil || nonce != "n-1" {
		t.Errorf("%q, %v", nonce, err)
	}
	if _, err := nonceOf([]byte(addressType)); err == nil {
		t.Error("a nonce where there is none")
	}
}

func TestChangesAreFoundInAnyPieces(t *testing.T) {
	f := newFleet(1, 3)
	f.clients = []*ztunnel{nil}
	for range 3 {
		f.next()
	}
	f.scan(0, []byte("x"+marker(2)+"y"+marker(0)+marker(7)+markerPrefix+"12"))
	if f.arrived[0].missing.Load() != 0 || f.arrived[1].missing.Load() != 1 || f.arrived[2].missing.Load() != 0 {
		t.Error("changes are not told apart")
	}
	if err := f.await(2); err != nil {
		t.Error(err)
	}
}
