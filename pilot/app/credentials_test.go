package app

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
)

const edgeMesh = `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: edge}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 443, name: one, protocol: HTTPS}, hosts: [one.example.com], tls: {mode: SIMPLE, credentialName: one}}]
---
`

// secretFor asks for a secret as a gateway does, and returns its content, empty when it is said not to be there.
func secretFor(ctx context.Context, t *testing.T, conn *grpc.ClientConn, namespace, name string) string {
	t.Helper()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.CloseSend() }()
	meta, err := structpb.NewStruct(map[string]any{"NAMESPACE": namespace, "LABELS": map[string]any{"istio": "ingressgateway"}})
	if err != nil {
		t.Fatal(err)
	}
	node := &corev3.Node{Id: "router~10.0.0.1~gw." + namespace + "~" + namespace + ".svc.cluster.local", Metadata: meta}
	for _, r := range []*discovery.DeltaDiscoveryRequest{
		{Node: node, TypeUrl: registry.ListenerType}, {TypeUrl: registry.SecretType, ResourceNamesSubscribe: []string{name}},
	} {
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	for {
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got.GetTypeUrl() != registry.SecretType {
			continue
		}
		for _, r := range got.GetResources() {
			if r.GetName() == name {
				return string(r.GetResource().GetValue())
			}
		}
		return ""
	}
}

func TestCredentialsReachOnlyWhoMayHaveThem(t *testing.T) {
	ca, err := testkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	manifest, secret, err := ca.Secret("edge", "one")
	if err != nil {
		t.Fatal(err)
	}
	key := string(secret)
	b := newSecureBed(t, edgeMesh+testkit.SecretReader("edge", "gw"), manifest)
	if got := secretFor(b.as("edge:gw"), t, b.conn, "edge", "kubernetes://one"); !strings.Contains(got, key) {
		t.Error("who may have it has not got it")
	}
	// Whatever the one before has asked for, and been given.
	for name, tt := range map[string]struct{ account, namespace, secret string }{
		"another account":                {"edge:other", "edge", "kubernetes://one"},
		"another namespace":              {"other:gw", "other", "kubernetes://one"},
		"another namespace by its name":  {"other:gw", "other", "kubernetes://edge/one"},
		"another namespace by a Gateway": {"other:gw", "other", "kubernetes-gateway://edge/one"},
		"what no Gateway names":          {"edge:gw", "edge", "kubernetes://two"},
	} {
		if got := secretFor(b.as(tt.account), t, b.conn, tt.namespace, tt.secret); got != "" {
			t.Errorf("%s: it is given away", name)
		}
	}
	plain, err := grpc.NewClient(b.addr.GRPC.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if got := secretFor(b.as(""), t, plain, "edge", "kubernetes://one"); got != "" {
		t.Error("nobody in particular is given it")
	}
	for _, page := range []string{"syncz", "configz", "statusz", "problemz", "registryz", "connections", "ambientz"} {
		response, err := http.Get("http://" + b.addr.HTTP.String() + "/debug/" + page)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || strings.Contains(string(text), "PRIVATE KEY") || strings.Contains(string(text), base64.StdEncoding.EncodeToString([]byte(key))) {
			t.Errorf("%s shows the key (%v)", page, err)
		}
	}
}
