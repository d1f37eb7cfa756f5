package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"                       // in Anys of dumps
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"                     // in Anys of dumps
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3" // in Anys of dumps
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"               // in Anys of dumps
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/internal_upstream/v3"     // in Anys of dumps
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"                   // in Anys of dumps
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"                          // in Anys of dumps
)

// A client that is none of ours: it reads what the control plane answers with the public types only, and by the names that Istio's own
// tool reads. What it may not do is to need anything else.

const foreignProxy = "reviews-wp-1.default"

// foreignAsk asks as Istio's tool does: state of the world, a node that says GENERATOR=event.
func foreignAsk(t *testing.T, target, typeURL string, names ...string) (*discovery.DiscoveryResponse, error) {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	about, err := structpb.NewStruct(map[string]any{"GENERATOR": "event"})
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discovery.DiscoveryRequest{Node: &corev3.Node{Id: "debug~0.0.0.0~istioctl~cluster.local", Metadata: about}, TypeUrl: typeURL, ResourceNames: names}); err != nil {
		t.Fatal(err)
	}
	return stream.Recv()
}

// TestForeignClient asks a real control plane, to which a waypoint is connected, as Istio's own tool would.
func TestForeignClient(t *testing.T) {
	t.Parallel()
	c := startControlPlane(t)
	c.connect(t)
	wait.Until(t, time.Minute, "the proxy acknowledges all", func() bool { return foreignSynced(c.page(t, "syncz")) }, func() string { return c.page(t, "syncz") })
	t.Run("syncz by HTTP", func(t *testing.T) { foreignSyncz(t, c.page(t, "syncz")) })
	t.Run("config_dump by HTTP", func(t *testing.T) { foreignDump(t, c.page(t, "config_dump?proxyID="+foreignProxy+"&include_eds")) })
	target := c.addresses.GRPC.String()
	t.Run("syncz by xDS", func(t *testing.T) { foreignStatus(t, target) })
	t.Run("connections by xDS", func(t *testing.T) { foreignNodes(t, target) })
	t.Run("pages by xDS", func(t *testing.T) {
		for name, want := range map[string]string{"syncz": `"proxy": "` + foreignProxy, "config_dump?proxyID=" + foreignProxy: `"configs"`, "ambientz": `"workloads"`} {
			answer, err := foreignAsk(t, target, "istio.io/debug", name)
			if err != nil || len(answer.GetResources()) != 1 || !json.Valid(answer.GetResources()[0].GetValue()) || !strings.Contains(string(answer.GetResources()[0].GetValue()), want) {
				t.Errorf("%s: %v, %.300s", name, err, answer)
			}
		}
		if _, err := foreignAsk(t, target, "istio.io/debug", "nonsense"); err == nil {
			t.Error("a page that there is not is answered")
		}
	})
}

// foreignSynced is whether all that was sent was acknowledged.
func foreignSynced(text string) bool {
	var all []struct {
		Resources map[string]struct{ Sent, Acked string }
	}
	if json.Unmarshal([]byte(text), &all) != nil || len(all) != 1 || len(all[0].Resources) != 3 {
		return false
	}
	for _, r := range all[0].Resources {
		if r.Sent == "" || r.Sent != r.Acked {
			return false
		}
	}
	return true
}

// foreignSyncz reads the page by the names of today's tool, and those of older ones.
func foreignSyncz(t *testing.T, text string) {
	var all []struct {
		ClusterID    string `json:"cluster_id"`
		Proxy        string `json:"proxy"`
		ProxyType    string `json:"proxy_type"`
		ProxyVersion string `json:"proxy_version"`
		IstioVersion string `json:"istio_version"`
		ClusterSent  string `json:"cluster_sent"`
		ClusterAcked string `json:"cluster_acked"`
		ListenerSent string `json:"listener_sent"`
		ListenerAck  string `json:"listener_acked"`
		RouteSent    string `json:"route_sent"`
		RouteAcked   string `json:"route_acked"`
		EndpointSent string `json:"endpoint_sent"`
		Resources    map[string]struct {
			Sent     string     `json:"sent"`
			Acked    string     `json:"acked"`
			SentTime *time.Time `json:"sentTime"`
		} `json:"resources"`
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil || len(all) != 1 {
		t.Fatal(err, text)
	}
	s := all[0]
	if s.Proxy != foreignProxy || s.ClusterID != "Kubernetes" || s.ProxyType != "waypoint" || s.ProxyVersion != "1.2.2" || s.IstioVersion != "1.2.2" {
		t.Errorf("%+v", s)
	}
	for _, pair := range [][2]string{{s.ClusterSent, s.ClusterAcked}, {s.ListenerSent, s.ListenerAck}, {s.RouteSent, s.RouteAcked}} {
		if pair[0] == "" || pair[0] != pair[1] {
			t.Errorf("a type that is in sync has sent and acked %q: %s", pair, text)
		}
	}
	if s.EndpointSent != "" {
		t.Errorf("endpoints were not asked for, and %q was sent", s.EndpointSent)
	}
	if r := s.Resources["type.googleapis.com/envoy.config.cluster.v3.Cluster"]; r.Sent == "" || r.Sent != r.Acked || r.SentTime == nil {
		t.Errorf("resources: %+v", s.Resources)
	}
}

// foreignDump reads a dump as Envoy's own type; nothing in it may be unknown.
func foreignDump(t *testing.T, text string) {
	var dump adminv3.ConfigDump
	if err := protojson.Unmarshal([]byte(text), &dump); err != nil {
		t.Fatalf("%v: %.500s", err, text)
	}
	sections := map[string]int{}
	read := func(a *anypb.Any, into proto.Message) {
		t.Helper()
		if err := a.UnmarshalTo(into); err != nil {
			t.Error(err)
		}
	}
	for _, a := range dump.GetConfigs() {
		section, err := a.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		switch section := section.(type) {
		case *adminv3.ClustersConfigDump:
			for _, x := range section.GetDynamicActiveClusters() {
				read(x.GetCluster(), &clusterv3.Cluster{})
				sections["clusters"]++
			}
		case *adminv3.ListenersConfigDump:
			for _, x := range section.GetDynamicListeners() {
				read(x.GetActiveState().GetListener(), &listenerv3.Listener{})
				sections["listeners"]++
			}
		case *adminv3.RoutesConfigDump:
			for _, x := range section.GetDynamicRouteConfigs() {
				read(x.GetRouteConfig(), &routev3.RouteConfiguration{})
				sections["routes"]++
			}
		case *adminv3.EndpointsConfigDump:
			for _, x := range section.GetDynamicEndpointConfigs() {
				read(x.GetEndpointConfig(), &endpointv3.ClusterLoadAssignment{})
			}
			sections["endpoints"]++
		case *adminv3.SecretsConfigDump, *adminv3.EcdsConfigDump, *adminv3.ScopedRoutesConfigDump:
		default:
			t.Errorf("a section of type %s", a.GetTypeUrl())
		}
	}
	for _, name := range []string{"clusters", "listeners", "routes", "endpoints"} {
		if sections[name] == 0 {
			t.Errorf("no %s in the dump: %v", name, sections)
		}
	}
}

// foreignStatus reads istio.io/debug/syncz.
func foreignStatus(t *testing.T, target string) {
	answer, err := foreignAsk(t, target, "istio.io/debug/syncz")
	if err != nil || len(answer.GetResources()) != 1 {
		t.Fatal(err, answer)
	}
	var config statusv3.ClientConfig
	if err := answer.GetResources()[0].UnmarshalTo(&config); err != nil {
		t.Fatal(err)
	}
	meta := config.GetNode().GetMetadata().GetFields()
	if config.GetNode().GetId() != foreignProxy || meta["CLUSTER_ID"].GetStringValue() != "Kubernetes" || meta["ISTIO_VERSION"].GetStringValue() != "1.2.2" {
		t.Errorf("node %v", config.GetNode())
	}
	var types []string
	for _, x := range config.GetGenericXdsConfigs() {
		if x.GetConfigStatus() != statusv3.ConfigStatus_SYNCED || x.GetLastUpdated() == nil {
			t.Errorf("%v", x)
		}
		types = append(types, x.GetTypeUrl())
	}
	if !slices.Contains(types, "type.googleapis.com/envoy.config.listener.v3.Listener") || len(types) != 3 {
		t.Error(types)
	}
	var who struct {
		Component, ID string
		Info          struct {
			Version string `json:"version"`
		}
	}
	if err := json.Unmarshal([]byte(answer.GetControlPlane().GetIdentifier()), &who); err != nil || who.Component != "istiod" || who.ID != "istiod-real" || who.Info.Version != "1.2.3" {
		t.Errorf("control plane %q: %+v %v", answer.GetControlPlane().GetIdentifier(), who, err)
	}
}

// foreignNodes reads istio.io/connections, from which the versions of the data plane are counted.
func foreignNodes(t *testing.T, target string) {
	answer, err := foreignAsk(t, target, "istio.io/connections")
	if err != nil || len(answer.GetResources()) != 1 {
		t.Fatal(err, answer)
	}
	var node corev3.Node
	if err := answer.GetResources()[0].UnmarshalTo(&node); err != nil {
		t.Fatal(err)
	}
	if version := node.GetMetadata().GetFields()["ISTIO_VERSION"].GetStringValue(); version != "1.2.2" || !strings.HasPrefix(node.GetId(), "waypoint~10.244.1.9~"+foreignProxy+"~") {
		t.Errorf("node %v", &node)
	}
}
