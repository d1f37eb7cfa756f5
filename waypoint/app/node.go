package app

import (
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/telemetry"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/xds"
)

// apiVersion is the Envoy whose API the engine speaks.
func apiVersion() [3]uint32 { return [3]uint32{1, 40, 0} }

// node says to the control plane who this proxy is.
func (c Config) node() (xds.Node, error) {
	proxyConfig := map[string]any{}
	text, err := protojson.Marshal(c.ProxyConfig)
	if err == nil {
		err = json.Unmarshal(text, &proxyConfig)
	}
	if err != nil {
		return xds.Node{}, fmt.Errorf("proxy configuration: %w", err)
	}
	return xds.Node{
		Kind: string(c.Kind), Cluster: c.ServiceCluster, Name: c.PodName, Namespace: c.PodNamespace, ServiceAccount: c.ServiceAccount, NodeName: c.NodeName,
		ClusterID: c.ClusterID, Domain: c.Domain, IPs: c.InstanceIPs, Labels: c.Labels, Version: c.Build.Version,
		Metadata: c.Metadata, ProxyConfig: proxyConfig, EngineVersion: apiVersion(),
	}, nil
}

// self is what the metrics of a gateway say of their source.
func (c Config) self(principal string) telemetry.Self {
	first := func(keys ...string) string {
		for _, key := range keys {
			if v := c.Labels[key]; v != "" {
				return v
			}
		}
		return ""
	}
	workload, _ := c.Metadata["WORKLOAD_NAME"].(string)
	if workload == "" {
		workload = workloadOf(c.PodName, c.Labels["pod-template-hash"])
	}
	canonical := first("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
	if canonical == "" {
		canonical = workload
	}
	revision := first("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
	if revision == "" {
		revision = "latest"
	}
	return telemetry.Self{
		Gateway: c.Kind == Router, Workload: workload, CanonicalService: canonical, CanonicalRevision: revision, Namespace: c.PodNamespace,
		Principal: principal, App: first("app", "app.kubernetes.io/name"), Version: first("version", "app.kubernetes.io/version"), Cluster: c.ClusterID,
	}
}

// workloadOf takes a Deployment's name from its pod's: NAME-HASH-SUFFIX.
func workloadOf(pod, hash string) string {
	if hash != "" {
		if name, _, ok := strings.Cut(pod, "-"+hash+"-"); ok {
			return name
		}
	}
	return pod
}
