package envoy

import (
	"math"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	internalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/internal_upstream/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/pilot/translate/gateway"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

// Keys of metadata.
const (
	istioMetadata       = "istio"
	originalDstMetadata = "envoy.filters.listener.original_dst"
	socketMatchMetadata = "envoy.transport_socket_match"
	// MeshMetadata is ours: what our engine verifies beyond what stock Envoy can. Envoy ignores it.
	MeshMetadata = "isthmus.mesh"

	httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// Resolution is where a cluster's endpoints come from.
type Resolution int

// The resolutions.
const (
	// ByEndpoints is EDS.
	ByEndpoints Resolution = iota
	// ByDNS resolves the names of the endpoints, which are part of the cluster.
	ByDNS
	// ByDNSOne is ByDNS, but one connection pool for all of a name's addresses.
	ByDNSOne
	// ByOriginal goes where the client wanted to.
	ByOriginal
)

// Cluster is what a cluster of a service is made from.
type Cluster struct {
	Mesh      Mesh
	Name      string
	Host      string
	Service   string // name and namespace of the object
	Namespace string
	Port      uint32
	Protocol  Protocol
	Subset    string
	// Rule is namespace/name of the DestinationRule that Policy is from; both may be missing.
	Rule   string
	Policy *networkingapi.TrafficPolicy
	// Resolution, and for ByDNS the Endpoints.
	Resolution Resolution
	Endpoints  []Endpoint
	// Proxyless clusters are for gRPC clients: they know no transport but their own.
	Proxyless bool
	// SubjectAltNames of the service, for TLS that does not name its own.
	SubjectAltNames []string
	// Prefers is which endpoints the service itself wants to be preferred.
	Prefers *workload.LoadBalancing
	// PeerIdentities are those of the endpoints that take mutual TLS of the mesh; without any it is one of the mesh's.
	PeerIdentities []string
	// Drains is that sessions stay with endpoints that are about to go.
	Drains bool
	// BackendTLS is what a BackendTLSPolicy says of the port; nil for nothing, and where the DestinationRule speaks of TLS.
	BackendTLS *gateway.BackendTLS
}

// Resource translates it.
func (c Cluster) Resource() *clusterv3.Cluster {
	if c.BackendTLS != nil && c.BackendTLS.Refused != "" {
		return c.refused()
	}
	out := &clusterv3.Cluster{
		Name:           c.Name,
		ConnectTimeout: durationpb.New(c.Mesh.connectTimeout()),
		LbPolicy:       clusterv3.Cluster_LEAST_REQUEST,
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections: u32(math.MaxUint32), MaxPendingRequests: u32(math.MaxUint32), MaxRequests: u32(math.MaxUint32),
			MaxRetries: u32(math.MaxUint32), TrackRemaining: true,
		}}},
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{},
		Metadata:       c.metadata(),
	}
	switch c.Resolution {
	case ByEndpoints:
		out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
		out.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: c.Name}
	case ByDNS, ByDNSOne:
		out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
		if c.Resolution == ByDNSOne {
			out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_LOGICAL_DNS}
		}
		c.applyDNS(out)
		out.LoadAssignment = Assignment(c.Name, c.Endpoints)
	case ByOriginal:
		originalDestinationCluster(out)
	}
	if c.Proxyless {
		out.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	}
	c.applyPolicy(out)
	return out
}

// applyDNS uses the older fields, which every Envoy knows.
func (c Cluster) applyDNS(out *clusterv3.Cluster) {
	refresh := seconds(60)
	if d := c.Mesh.Config.GetDnsRefreshRate(); d != nil {
		refresh = d
	}
	out.DnsLookupFamily = clusterv3.Cluster_V4_PREFERRED
	out.DnsRefreshRate = refresh //nolint:staticcheck // see above
	out.RespectDnsTtl = true     //nolint:staticcheck // see above
}

func originalDestinationCluster(out *clusterv3.Cluster) {
	out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST}
	out.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	out.EdsClusterConfig, out.LoadAssignment = nil, nil
}

// metadata says of which service the cluster is, for telemetry and for people.
func (c Cluster) metadata() *corev3.Metadata {
	about := map[string]*structpb.Value{
		"services": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStructValue(fields(map[string]*structpb.Value{
			"host": text(c.Host), "name": text(c.Service), "namespace": text(c.Namespace),
		}))}}),
	}
	if c.Subset != "" {
		about["subset"] = text(c.Subset)
	}
	if c.Rule != "" {
		about["config"] = text(rulePath(c.Rule))
	}
	out := &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{istioMetadata: fields(about)}}
	own := c.Mesh.options().cluster()
	if c.BackendTLS != nil {
		if own == nil {
			own = fields(map[string]*structpb.Value{})
		}
		own.Fields[BackendTLSPolicyMetadata] = text(c.BackendTLS.Policy.Namespace + "/" + c.BackendTLS.Policy.Name)
		if c.BackendTLS.Refused != "" {
			own.Fields[RefusedMetadata] = text(c.BackendTLS.Refused)
		}
	}
	if own != nil && !c.Proxyless {
		out.FilterMetadata[MeshMetadata] = own
	}
	return out
}

// socketMatch is the transport of endpoints with that metadata; without a key, of all that are left.
func socketMatch(name, key, value string, socket *corev3.TransportSocket) *clusterv3.Cluster_TransportSocketMatch {
	m := &structpb.Struct{}
	if key != "" {
		m = fields(map[string]*structpb.Value{key: text(value)})
	}
	return &clusterv3.Cluster_TransportSocketMatch{Name: name, Match: m, TransportSocket: socket}
}

// transports choose by endpoint: HBONE for those that speak it, mutual TLS for those that have a sidecar. What the rule says is for
// all that have no tunnel, and inside of the tunnels: there it is end to end with the application.
func (c Cluster) transports() []*clusterv3.Cluster_TransportSocketMatch {
	hbone := func(inner *corev3.TransportSocket) *clusterv3.Cluster_TransportSocketMatch {
		return socketMatch("hbone", "tunnel", "h2", internalUpstream(inner))
	}
	if own := c.originatedTLS(); own != nil {
		return []*clusterv3.Cluster_TransportSocketMatch{hbone(own), socketMatch("tlsMode-user", "", "", own)}
	}
	switch {
	case c.Policy.GetTls() == nil && c.Mesh.autoMutualTLS():
		return []*clusterv3.Cluster_TransportSocketMatch{
			hbone(rawBuffer()), socketMatch("tlsMode-istio", "tlsMode", "istio", c.mutualTLS()), socketMatch("tlsMode-disabled", "", "", rawBuffer()),
		}
	case c.Policy.GetTls().GetMode() == networkingapi.ClientTLSSettings_ISTIO_MUTUAL:
		return []*clusterv3.Cluster_TransportSocketMatch{hbone(rawBuffer()), socketMatch("tlsMode-user", "", "", c.mutualTLS())}
	}
	return []*clusterv3.Cluster_TransportSocketMatch{hbone(rawBuffer()), socketMatch("tlsMode-disabled", "", "", rawBuffer())}
}

func rawBuffer() *corev3.TransportSocket {
	return transportSocket("envoy.transport_sockets.raw_buffer", &rawv3.RawBuffer{})
}

// internalUpstream takes along to the internal listener where the connection is to go.
func internalUpstream(inner *corev3.TransportSocket) *corev3.TransportSocket {
	return transportSocket("envoy.transport_sockets.internal_upstream", &internalv3.InternalUpstreamTransport{
		PassthroughMetadata: []*internalv3.InternalUpstreamTransport_MetadataValueSource{{
			Kind: &metadatav3.MetadataKind{Kind: &metadatav3.MetadataKind_Host_{Host: &metadatav3.MetadataKind_Host{}}},
			Name: originalDstMetadata,
		}},
		TransportSocket: inner,
	})
}

// ProxyClusters are those that every waypoint and gateway has beside its services'. Only a waypoint has listeners behind
// main_internal. With byWaypoint, endpoints may name a waypoint to go through.
func ProxyClusters(mesh Mesh, waypoint, byWaypoint bool) []*clusterv3.Cluster {
	out := []*clusterv3.Cluster{originate(mesh, byWaypoint)}
	if waypoint {
		out = append(out, internalCluster(mesh, Encap, ConnectOriginate), internalCluster(mesh, MainInternal, MainInternal))
	}
	return out
}

// internalCluster leads to a listener of the same proxy.
func internalCluster(mesh Mesh, name, listener string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(mesh.connectTimeout()),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
				Endpoint: &endpointv3.Endpoint{Address: internalAddress(listener, "")},
			}}},
		}}},
		TransportSocket: transportSocket("envoy.transport_sockets.internal_upstream", &internalv3.InternalUpstreamTransport{TransportSocket: rawBuffer()}),
		CircuitBreakers: unlimited(),
	}
}

func unlimited() *clusterv3.CircuitBreakers {
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections: u32(math.MaxUint32), MaxPendingRequests: u32(math.MaxUint32), MaxRequests: u32(math.MaxUint32), MaxRetries: u32(math.MaxUint32),
		TrackRemaining: true,
	}}}
}

// originate is HBONE to the address of the connection, or to a waypoint if the endpoint names one.
func originate(mesh Mesh, byWaypoint bool) *clusterv3.Cluster {
	lb := &clusterv3.Cluster_OriginalDstLbConfig{UpstreamPortOverride: u32(hbonePort)}
	if byWaypoint {
		lb.MetadataKey = &metadatav3.MetadataKey{Key: originalDstMetadata, Path: []*metadatav3.MetadataKey_PathSegment{{
			Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: "waypoint"},
		}}}
	}
	out := &clusterv3.Cluster{
		Name:            ConnectOriginate,
		ConnectTimeout:  durationpb.New(mesh.connectTimeout()),
		CleanupInterval: seconds(60),
		CircuitBreakers: unlimited(),
		Metadata:        mesh.options().metadata(),
		LbConfig:        &clusterv3.Cluster_OriginalDstLbConfig_{OriginalDstLbConfig: lb},
		TransportSocket: transportSocket(tlsSocket, &tlsv3.UpstreamTlsContext{CommonTlsContext: meshTLS(mesh)}),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{httpOptions: pack(&httpv3.HttpProtocolOptions{
			UpstreamProtocolOptions: explicitHTTP2(&corev3.Http2ProtocolOptions{AllowConnect: true, ConnectionKeepalive: keepalive()}),
		})},
	}
	originalDestinationCluster(out)
	return out
}

func explicitHTTP2(o *corev3.Http2ProtocolOptions) *httpv3.HttpProtocolOptions_ExplicitHttpConfig_ {
	return &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: o},
	}}
}
