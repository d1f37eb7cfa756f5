package debug

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// SyncStatus is one proxy in /debug/syncz.
type SyncStatus struct {
	ClusterID    string `json:"cluster_id,omitempty"`
	Proxy        string `json:"proxy,omitempty"`
	ProxyType    string `json:"proxy_type,omitempty"`
	ProxyVersion string `json:"proxy_version,omitempty"`
	IstioVersion string `json:"istio_version,omitempty"`
	legacyStatus
	Resources map[string]ResourceStatus `json:"resources,omitempty"`
}

// ResourceStatus is how far a proxy has come with one type.
type ResourceStatus struct {
	Sent      string     `json:"sent,omitempty"`
	Acked     string     `json:"acked,omitempty"`
	SentTime  *time.Time `json:"sentTime,omitempty"`
	LastError string     `json:"lastError,omitempty"`
}

func metadata(n *corev3.Node, key string) string {
	return n.GetMetadata().GetFields()[key].GetStringValue()
}

// proxyName is <pod>.<namespace>, the third part of a node id, and its type, the first.
func proxyName(n *corev3.Node) (kind, name string) {
	parts := strings.Split(n.GetId(), "~")
	if len(parts) != 4 {
		return "", n.GetId()
	}
	return parts[0], parts[2]
}

func (s *Server) syncz(namespace string) []SyncStatus {
	out := []SyncStatus{}
	for _, c := range s.proxies() {
		if namespace != "" && metadata(c.Node, "NAMESPACE") != namespace {
			continue
		}
		kind, name := proxyName(c.Node)
		if kind == "" {
			continue // a tool
		}
		version := metadata(c.Node, "ISTIO_VERSION")
		status := SyncStatus{ClusterID: clusterOf(c), Proxy: name, ProxyType: kind, ProxyVersion: version, IstioVersion: version, Resources: map[string]ResourceStatus{}}
		for _, t := range c.Types {
			r := ResourceStatus{Sent: t.Sent, Acked: t.Acked, LastError: t.LastError}
			if !t.SentTime.IsZero() {
				r.SentTime = &t.SentTime
			}
			status.Resources[t.TypeURL] = r
			status.note(t)
		}
		out = append(out, status)
	}
	return out
}

func clusterOf(c server.ClientStatus) string {
	if id := metadata(c.Node, "CLUSTER_ID"); id != "" {
		return id
	}
	return c.Peer.ClusterID
}

func (s *Server) synczResources(_ context.Context, _ *discovery.DiscoveryRequest, _ server.Peer) ([]*anypb.Any, error) {
	var out []*anypb.Any
	for _, c := range s.proxies() {
		kind, name := proxyName(c.Node)
		if kind == "" {
			continue
		}
		config := &statusv3.ClientConfig{Node: &corev3.Node{Id: name, Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{}}}}
		for key, value := range map[string]string{"CLUSTER_ID": clusterOf(c), "NAMESPACE": metadata(c.Node, "NAMESPACE"), "ISTIO_VERSION": metadata(c.Node, "ISTIO_VERSION")} {
			if value != "" {
				config.Node.Metadata.Fields[key] = structpb.NewStringValue(value)
			}
		}
		for _, t := range c.Types {
			config.GenericXdsConfigs = append(config.GenericXdsConfigs, typeStatus(t))
		}
		a, err := anypb.New(config)
		if err != nil {
			return nil, fmt.Errorf("marshal the status of %s: %w", name, err)
		}
		out = append(out, a)
	}
	return out, nil
}

func typeStatus(t server.TypeStatus) *statusv3.ClientConfig_GenericXdsConfig {
	out := &statusv3.ClientConfig_GenericXdsConfig{TypeUrl: t.TypeURL}
	switch {
	case t.LastError != "":
		out.ConfigStatus = statusv3.ConfigStatus_ERROR
		out.ErrorState = &adminv3.UpdateFailureState{Details: t.LastError}
	case t.Sent == "":
		out.ConfigStatus = statusv3.ConfigStatus_NOT_SENT
	case t.Sent == t.Acked:
		out.ConfigStatus = statusv3.ConfigStatus_SYNCED
	default:
		out.ConfigStatus = statusv3.ConfigStatus_STALE
	}
	if !t.SentTime.IsZero() {
		out.LastUpdated = timestamppb.New(t.SentTime)
	}
	return out
}

// ControlPlane is the identifier in responses to tools.
func (s *Server) ControlPlane() (*corev3.ControlPlane, error) {
	id, err := json.Marshal(struct {
		Component, ID string
		Info          telemetry.Build
	}{"istiod", s.Instance, s.Build})
	if err != nil {
		return nil, fmt.Errorf("marshal the control plane's identifier: %w", err)
	}
	return &corev3.ControlPlane{Identifier: string(id)}, nil
}

// proxies are the clients that are proxies; tools that ask about them are clients too.
func (s *Server) proxies() []server.ClientStatus {
	return slices.DeleteFunc(s.Clients(), func(c server.ClientStatus) bool { return metadata(c.Node, "GENERATOR") != "" })
}
