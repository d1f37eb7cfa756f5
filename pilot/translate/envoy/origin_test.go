package envoy

import (
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// TestNaming: chains say where they come from only where that is asked for, and what metrics are told is not lost or changed.
func TestNaming(t *testing.T) {
	t.Parallel()
	told := &structpb.Struct{Fields: map[string]*structpb.Value{"reporting_interval_seconds": structpb.NewNumberValue(5)}}
	origins := []route.Origin{{Kind: "TLSRoute", Namespace: "shop", Name: "edge"}, {}}
	for _, named := range []bool{true, false} {
		m := Mesh{Origins: named, Telemetry: &policy.Telemetry{Metrics: told}}
		chains := m.naming(m.telling([]*listenerv3.FilterChain{{Name: "a"}, {Name: "b"}}), origins)
		own := chains[0].GetMetadata().GetFilterMetadata()[MeshMetadata]
		kind, namespace, name, ok := OriginOf(own)
		if ok != named || named && (kind != "TLSRoute" || namespace != "shop" || name != "edge") {
			t.Errorf("named %v: %v %s %s/%s", named, ok, kind, namespace, name)
		}
		if own.GetFields()["reporting_interval_seconds"].GetNumberValue() != 5 {
			t.Errorf("named %v: what metrics are told is lost: %v", named, own)
		}
		if _, _, _, ok := OriginOf(chains[1].GetMetadata().GetFilterMetadata()[MeshMetadata]); ok {
			t.Errorf("named %v: a chain of nobody has an origin", named)
		}
	}
	if len(told.GetFields()) != 1 {
		t.Errorf("what is shared was changed: %v", told)
	}
}
