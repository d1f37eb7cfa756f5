package l7

import (
	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	xdstypev3 "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"istio.io/api/envoy/extensions/stats"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// The configurations of filters of Istio's build of Envoy that find out who the peers are; they come as structures.
const (
	httpPeers = "type.googleapis.com/io.istio.http.peer_metadata.Config"
	tcpPeers  = "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange"
)

// observes recognises filters of Istio's build of Envoy that do nothing to requests: they count, or find out for that who the peers are.
// The engine does both by itself, for all traffic alike (waypoint/internal/telemetry and peers). Istio's control plane configures them
// on every waypoint. What they would do beyond that is refused.
func observes(m proto.Message) (bool, error) {
	switch m := m.(type) {
	case *stats.PluginConfig:
		return true, nil
	case *udpav1.TypedStruct:
		return discovers(m.GetTypeUrl(), m.GetValue())
	case *xdstypev3.TypedStruct:
		return discovers(m.GetTypeUrl(), m.GetValue())
	}
	return false, nil
}

// discovers accepts discovery of peers, and refuses to tell peers about ourselves in headers.
func discovers(typeURL string, value *structpb.Struct) (bool, error) {
	switch typeURL {
	case tcpPeers: // peers speak of themselves by an ALPN of their own, which is never offered to them
		return true, nil
	case httpPeers:
		for _, field := range []string{"downstream_propagation", "upstream_propagation"} {
			if _, set := value.GetFields()[field]; set {
				return false, strict.Errorf("value."+field, "is not supported")
			}
		}
		return true, nil
	}
	return false, strict.Errorf("type_url", "%q is not supported", typeURL)
}
