package app

import (
	"io"
	"net/http"
	"strings"
	"testing"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/internal_listener/v3" // in Envoy's dump
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
)

// sentIn are the resources of a dump that a control plane has sent, as "Type name".
func sentIn(t *testing.T, text string) map[string]proto.Message {
	t.Helper()
	dump := &adminv3.ConfigDump{}
	if err := protojson.Unmarshal([]byte(text), dump); err != nil {
		t.Fatalf("%v in %.400s", err, text)
	}
	out := map[string]proto.Message{}
	add := func(content *anypb.Any) {
		m, err := content.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		fields := m.ProtoReflect().Descriptor().Fields()
		name := fields.ByName("name")
		if name == nil {
			name = fields.ByName("cluster_name")
		}
		out[string(m.ProtoReflect().Descriptor().Name())+" "+m.ProtoReflect().Get(name).String()] = m
	}
	for _, packed := range dump.GetConfigs() {
		section, err := packed.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		switch section := section.(type) {
		case *adminv3.ClustersConfigDump:
			for _, c := range section.GetDynamicActiveClusters() {
				add(c.GetCluster())
			}
		case *adminv3.ListenersConfigDump:
			for _, l := range section.GetDynamicListeners() {
				add(l.GetActiveState().GetListener())
			}
		case *adminv3.RoutesConfigDump:
			for _, r := range section.GetDynamicRouteConfigs() {
				add(r.GetRouteConfig())
			}
		case *adminv3.EndpointsConfigDump:
			for _, e := range section.GetDynamicEndpointConfigs() {
				add(e.GetEndpointConfig())
			}
		}
	}
	return out
}

func page(t *testing.T, addr Addresses, path string) (int, string) {
	t.Helper()
	r, err := http.Get("http://" + addr.Monitoring.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// sameConfiguration checks that what pilot says a proxy is to have is what the proxy says it has.
func sameConfiguration(t *testing.T, addr Addresses, e *envoy, name string) {
	t.Helper()
	code, text := page(t, addr, "/debug/config_dump?proxyID="+name)
	if code != http.StatusOK {
		t.Fatalf("config_dump: %d %s", code, text)
	}
	want, have := sentIn(t, text), sentIn(t, e.get("/config_dump"))
	kinds := map[protoreflect.Name]int{}
	for key, w := range want {
		kinds[w.ProtoReflect().Descriptor().Name()]++
		if h := have[key]; h == nil || !proto.Equal(w, h) {
			t.Errorf("%s:\npilot: %v\nEnvoy: %v", key, w, h)
		}
	}
	for key := range have {
		if want[key] == nil {
			t.Errorf("Envoy has %s", key)
		}
	}
	if kinds["Cluster"] == 0 || kinds["Listener"] == 0 || kinds["RouteConfiguration"] == 0 {
		t.Errorf("pilot shows %v", kinds)
	}
}

// askTool asks for one resource of a type that tools ask for.
func askTool(t *testing.T, b *secureBed, account, typeURL string, names ...string) (*discovery.DiscoveryResponse, error) {
	t.Helper()
	tool, err := discovery.NewAggregatedDiscoveryServiceClient(b.conn).StreamAggregatedResources(b.as(account))
	if err != nil {
		t.Fatal(err)
	}
	generator, err := structpb.NewStruct(map[string]any{"GENERATOR": "event"})
	if err != nil {
		t.Fatal(err)
	}
	err = tool.Send(&discovery.DiscoveryRequest{TypeUrl: typeURL, ResourceNames: names, Node: &corev3.Node{Id: "debug~0.0.0.0~istioctl~cluster.local", Metadata: generator}})
	if err != nil {
		t.Fatal(err)
	}
	return tool.Recv()
}

// TestToolsSeePages: the pages are there by xDS, for the system namespace.
func TestToolsSeePages(t *testing.T) {
	b := newSecureBed(t)
	proxy, err := discovery.NewAggregatedDiscoveryServiceClient(b.conn).DeltaAggregatedResources(b.as("istio-system:ztunnel"))
	if err != nil {
		t.Fatal(err)
	}
	about, err := structpb.NewStruct(map[string]any{"NAMESPACE": "istio-system"})
	if err != nil {
		t.Fatal(err)
	}
	if err := proxy.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: registry.AddressType, Node: &corev3.Node{Id: "ztunnel~10.0.0.9~ztunnel-1.istio-system~istio-system.svc.cluster.local", Metadata: about}}); err != nil {
		t.Fatal(err)
	}
	if _, err := proxy.Recv(); err != nil {
		t.Fatal(err)
	}
	const tool = "istio-system:default"
	for _, c := range []struct {
		account, typeURL string
		names            []string
		code             codes.Code
		has              string
	}{
		{tool, "istio.io/debug", []string{"connections"}, codes.OK, "ztunnel-1.istio-system"},
		{tool, "istio.io/debug", []string{"/debug/syncz?namespace=nowhere"}, codes.OK, "[]"},
		{tool, "istio.io/debug", []string{"list"}, codes.OK, "/debug/config_dump: "},
		{tool, "istio.io/debug", []string{"none"}, codes.NotFound, `no page "none"`},
		{tool, "istio.io/debug", nil, codes.InvalidArgument, "name one"},
		{tool, "istio.io/debug/config_dump", []string{"other.shop"}, codes.NotFound, "not connected"},
		{tool, "istio.io/debug/config_dump", []string{"ztunnel-1.istio-system"}, codes.InvalidArgument, "ambientz"},
		{"shop:web", "istio.io/debug", []string{"connections"}, codes.PermissionDenied, "system namespace"},
		{"shop:web", "istio.io/debug/config_dump", []string{"ztunnel-1.istio-system"}, codes.PermissionDenied, "system namespace"},
	} {
		answer, err := askTool(t, b, c.account, c.typeURL, c.names...)
		if status.Code(err) != c.code {
			t.Errorf("%v: %v", c, err)
			continue
		}
		text := status.Convert(err).Message()
		if err == nil {
			text = string(answer.GetResources()[0].GetValue())
		}
		if !strings.Contains(text, c.has) {
			t.Errorf("%v: %s", c, text)
		}
	}
	for path, want := range map[string]int{"/debug/config_dump": http.StatusBadRequest, "/debug/config_dump?proxyID=other.shop": http.StatusNotFound} {
		if code, text := page(t, b.addr, path); code != want {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
}
