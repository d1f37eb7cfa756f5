package debug

import (
	"context"
	"fmt"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// ConnectionsType are the nodes of the proxies that are connected, as they have told of themselves: istioctl version reads them.
const ConnectionsType = "istio.io/connections"

func (s *Server) connectionResources(_ context.Context, _ *discovery.DiscoveryRequest, _ server.Peer) ([]*anypb.Any, error) {
	var out []*anypb.Any
	for _, c := range s.proxies() {
		if kind, _ := proxyName(c.Node); kind == "" {
			continue
		}
		a, err := anypb.New(c.Node)
		if err != nil {
			return nil, fmt.Errorf("marshal the node %s: %w", c.Node.GetId(), err)
		}
		out = append(out, a)
	}
	return out, nil
}

// legacyStatus are the fields of Envoy's types by which older tools tell how far a proxy has come.
type legacyStatus struct {
	ClusterSent          string `json:"cluster_sent,omitempty"`
	ClusterAcked         string `json:"cluster_acked,omitempty"`
	ListenerSent         string `json:"listener_sent,omitempty"`
	ListenerAcked        string `json:"listener_acked,omitempty"`
	RouteSent            string `json:"route_sent,omitempty"`
	RouteAcked           string `json:"route_acked,omitempty"`
	EndpointSent         string `json:"endpoint_sent,omitempty"`
	EndpointAcked        string `json:"endpoint_acked,omitempty"`
	ExtensionConfigSent  string `json:"extensionconfig_sent,omitempty"`
	ExtensionConfigAcked string `json:"extensionconfig_acked,omitempty"`
}

func (l *legacyStatus) note(t server.TypeStatus) {
	switch t.TypeURL[strings.LastIndexByte(t.TypeURL, '.')+1:] {
	case "Cluster":
		l.ClusterSent, l.ClusterAcked = t.Sent, t.Acked
	case "Listener":
		l.ListenerSent, l.ListenerAcked = t.Sent, t.Acked
	case "RouteConfiguration":
		l.RouteSent, l.RouteAcked = t.Sent, t.Acked
	case "ClusterLoadAssignment":
		l.EndpointSent, l.EndpointAcked = t.Sent, t.Acked
	case "TypedExtensionConfig":
		l.ExtensionConfigSent, l.ExtensionConfigAcked = t.Sent, t.Acked
	}
}
