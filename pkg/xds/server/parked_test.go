package server

import (
	"bytes"
	"log/slog"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// oneScope has all clients in it.
type oneScope struct{}

func (oneScope) ScopeOf(*corev3.Node, Peer, string) string { return "a" }
func (oneScope) Open(string)                               {}
func (oneScope) Close(string)                              {}

// TestWhatWasAskedForBeforeIsAnsweredBefore: the scope begins to serve between two requests, and the push that this leads to comes after both.
func TestWhatWasAskedForBeforeIsAnsweredBefore(t *testing.T) {
	const clusters, endpoints = "type.googleapis.com/envoy.config.cluster.v3.Cluster", "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	s := New(Config{Scopes: oneScope{}, Log: slog.New(slog.DiscardHandler)})
	base, err := s.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer base.close()
	st := &deltaStream{}
	st.stream, st.enroll, st.do = base, st.subscribe, st.send
	if err := st.identify(&corev3.Node{Id: "waypoint~10.0.0.1~wp.shop~shop.svc.cluster.local"}, admit); err != nil {
		t.Fatal(err)
	}
	var got written
	if err := st.take(&got, &discovery.DeltaDiscoveryRequest{TypeUrl: clusters}); err != nil || len(got) > 0 {
		t.Fatalf("%d answers of a scope without anything, %v", len(got), err)
	}
	of := func(typeURL string) Update {
		return Update{TypeURL: typeURL, Changed: []Resource{{Name: "c", Version: "1", Any: &anypb.Any{TypeUrl: typeURL}}}}
	}
	s.PublishScope("a", of(clusters), of(endpoints))
	if err := st.take(&got, &discovery.DeltaDiscoveryRequest{TypeUrl: endpoints, ResourceNamesSubscribe: []string{"c"}}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 {
		t.Fatalf("%d answers", len(got))
	}
	for i, typeURL := range []string{clusters, endpoints} {
		if message := got[i].(*encoded).parts.Materialize(); !bytes.Contains(message, []byte(typeURL)) {
			t.Errorf("answer %d is not of %s", i, typeURL)
		}
	}
}
