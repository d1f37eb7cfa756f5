package app

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/pkg/xds/client"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// handler hands the resources of one type to the state's builder.
type handler func(updated []l4.Resource, removed []string) []l4.Rejection

// Apply implements client.Handler.
func (h handler) Apply(updated []client.Resource, removed []string) []client.Rejected {
	resources := make([]l4.Resource, len(updated))
	for i, r := range updated {
		resources[i] = l4.Resource{Name: r.Name, Any: r.Any}
	}
	var out []client.Rejected
	for _, r := range h(resources, removed) {
		out = append(out, client.Rejected{Name: r.Name, Reason: r.Reason})
	}
	return out
}

// newDiscovery subscribes builder to workloads, services and policies.
func newDiscovery(cfg Config, builder *l4.Builder, metrics *client.Metrics) (*client.Client, error) {
	upstream := cfg.upstream(cfg.XDS)
	target, err := upstream.Target()
	if err != nil {
		return nil, err
	}
	node, err := cfg.node()
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{
		Target: target, Dial: upstream.DialOptions, Node: node, Log: cfg.Log, Metrics: metrics,
		Types: []client.Watch{
			{TypeURL: l4.AddressType, Handler: handler(builder.ApplyAddresses), OnDemand: cfg.OnDemand},
			{TypeURL: l4.AuthorizationType, Handler: handler(builder.ApplyPolicies)},
		},
	}), nil
}

// node says to the control plane who this proxy is.
func (c Config) node() (*corev3.Node, error) {
	about := map[string]any{}
	for key, value := range c.Metadata {
		about[key] = value
	}
	for key, value := range map[string]string{
		"NAME": c.PodName, "NAMESPACE": c.PodNamespace, "INSTANCE_IPS": c.InstanceIP.String(), "NODE_NAME": c.NodeName,
		"ISTIO_VERSION": c.Build.Version, "CLUSTER_ID": c.ClusterID, "SERVICE_ACCOUNT": c.ServiceAccount,
	} {
		if value != "" {
			about[key] = value
		}
	}
	metadata, err := structpb.NewStruct(about)
	if err != nil {
		return nil, fmt.Errorf("node metadata: %w", err)
	}
	id := []string{"ztunnel", c.InstanceIP.String(), c.PodName + "." + c.PodNamespace, c.PodNamespace + ".svc." + c.ClusterDomain}
	return &corev3.Node{Id: strings.Join(id, "~"), Metadata: metadata}, nil
}

// demander asks the control plane for what connections need, in on-demand mode.
type demander struct{ client *client.Client }

// Demand implements proxy.Demander.
func (d demander) Demand(ctx context.Context, key string) error {
	return d.client.Demand(ctx, l4.AddressType, key)
}

// hostResolver resolves workloads' host names from the proxy's own network.
type hostResolver struct{ *net.Resolver }

// LookupNetIP implements proxy.Resolver.
func (r hostResolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if !strings.HasSuffix(host, ".") {
		host += "." // the mesh's names are complete: no search path
	}
	return r.Resolver.LookupNetIP(ctx, network, host)
}
