// Package api_test pins every wire that crosses a component boundary to bytes.
package api_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	authv1 "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/api/zds"
)

// vector is one message in its text form and its bytes on the wire.
type vector struct{ Name, Message, Text, Hex string }

// newMessage maps the full names used by the vectors to fresh messages.
func newMessage(name string) proto.Message {
	switch name {
	case "istio.workload.Workload":
		return &workload.Workload{}
	case "istio.workload.Service":
		return &workload.Service{}
	case "istio.workload.Address":
		return &workload.Address{}
	case "istio.security.Authorization":
		return &security.Authorization{}
	case "istio.workload.zds.ZdsHello":
		return &zds.ZdsHello{}
	case "istio.workload.zds.WorkloadRequest":
		return &zds.WorkloadRequest{}
	case "istio.workload.zds.WorkloadResponse":
		return &zds.WorkloadResponse{}
	case "istio.v1.auth.IstioCertificateRequest":
		return &authv1.IstioCertificateRequest{}
	case "istio.v1.auth.IstioCertificateResponse":
		return &authv1.IstioCertificateResponse{}
	case "envoy.service.discovery.v3.DeltaDiscoveryRequest":
		return &discovery.DeltaDiscoveryRequest{}
	case "envoy.service.discovery.v3.DeltaDiscoveryResponse":
		return &discovery.DeltaDiscoveryResponse{}
	}
	return nil
}

func TestGoldenVectorsEncodeAndDecode(t *testing.T) {
	raw, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) < 30 {
		t.Fatalf("only %d vectors", len(vectors))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			fromText := newMessage(v.Message)
			if fromText == nil {
				t.Fatalf("no message named %s", v.Message)
			}
			if err := prototext.Unmarshal([]byte(v.Text), fromText); err != nil {
				t.Fatalf("text form: %v", err)
			}
			encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(fromText)
			if err != nil {
				t.Fatal(err)
			}
			wire, err := hex.DecodeString(v.Hex)
			if err != nil {
				t.Fatal(err)
			}
			fromWire := newMessage(v.Message)
			if err := proto.Unmarshal(wire, fromWire); err != nil {
				t.Fatalf("decode: %v", err)
			}
			if !proto.Equal(fromWire, fromText) {
				t.Errorf("decoded %v\nwant    %v", fromWire, fromText)
			}
			if unknown := fromWire.ProtoReflect().GetUnknown(); len(unknown) > 0 {
				t.Errorf("unknown fields %x", unknown)
			}
			// Go writes members of a oneof after the plain fields, so the order of fields may differ, never the length.
			if got := hex.EncodeToString(encoded); len(got) != len(v.Hex) {
				t.Errorf("encoded %s\nwant    %s", got, v.Hex)
			}
		})
	}
}
