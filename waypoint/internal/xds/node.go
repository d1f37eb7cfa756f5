package xds

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// Node is who the proxy is, for the control plane.
type Node struct {
	Kind                                                 string // "waypoint" or "router"
	Name, Namespace, ServiceAccount, NodeName, ClusterID string
	Domain                                               string
	// Cluster is the name of the group of proxies; by default it is made of labels.
	Cluster string
	IPs     []netip.Addr
	Labels  map[string]string
	// Version is what the proxy says it is of Istio's.
	Version string
	// Metadata is more of it: ISTIO_META_X as X.
	Metadata map[string]any
	// ProxyConfig is shown to the control plane as metadata; it may be nil.
	ProxyConfig map[string]any
	// EngineVersion is major, minor and patch of the Envoy API that the engine speaks.
	EngineVersion [3]uint32
}

// ID is the node ID: kind~IP~pod.namespace~domain.
func (n Node) ID() string {
	ip := "1.1.1.1"
	if len(n.IPs) > 0 {
		ip = n.IPs[0].String()
	}
	return fmt.Sprintf("%s~%s~%s.%s~%s", n.Kind, ip, n.Name, n.Namespace, n.Domain)
}

// Proto is the node as it goes with the first requests, and into a bootstrap.
func (n Node) Proto() (*corev3.Node, error) {
	labels := map[string]any{}
	for key, value := range n.Labels {
		labels[key] = value
	}
	ips := make([]string, len(n.IPs))
	for i, ip := range n.IPs {
		ips[i] = ip.String()
	}
	fields := map[string]any{
		"NAME": n.Name, "NAMESPACE": n.Namespace, "SERVICE_ACCOUNT": n.ServiceAccount, "CLUSTER_ID": n.ClusterID,
		"INSTANCE_IPS": strings.Join(ips, ","), "ISTIO_VERSION": n.Version, "LABELS": labels,
	}
	if n.NodeName != "" {
		fields["NODE_NAME"] = n.NodeName
	}
	if n.ProxyConfig != nil {
		fields["PROXY_CONFIG"] = n.ProxyConfig
	}
	maps.Copy(fields, n.Metadata)
	metadata, err := structpb.NewStruct(fields)
	if err != nil {
		return nil, fmt.Errorf("metadata of the node: %w", err)
	}
	return &corev3.Node{
		Id: n.ID(), Cluster: n.cluster(), Metadata: metadata,
		UserAgentName: "envoy",
		UserAgentVersionType: &corev3.Node_UserAgentBuildVersion{UserAgentBuildVersion: &corev3.BuildVersion{
			Version: &typev3.SemanticVersion{MajorNumber: n.EngineVersion[0], MinorNumber: n.EngineVersion[1], Patch: n.EngineVersion[2]},
		}},
	}, nil
}

// cluster is the name of the group of proxies: the canonical service and the namespace.
func (n Node) cluster() string {
	if n.Cluster != "" {
		return n.Cluster
	}
	for _, key := range []string{"service.istio.io/canonical-name", "app.kubernetes.io/name", "app"} {
		if name := n.Labels[key]; name != "" {
			return name + "." + n.Namespace
		}
	}
	return "istio-proxy." + n.Namespace
}
