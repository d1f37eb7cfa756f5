package simulate

import (
	"maps"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// Kind is what a proxy is.
type Kind string

// The kinds of proxies that are configured with Envoy's resources.
const (
	Waypoint  Kind = "waypoint"
	Router    Kind = "router"
	Proxyless Kind = "grpc"
)

// Proxy says who asks. Proxies of one Gateway are configured alike.
type Proxy struct {
	Kind      Kind
	Namespace string
	// Gateway is the name of the Gateway that the proxy was deployed for; empty for a gateway that was deployed by hand.
	Gateway string
	// Labels of the pods of a Router: the selectors of classic Gateways and of policies are matched against them.
	Labels map[string]string
	// Pod is the name of its pod, whose place decides which endpoints are near; empty is a proxy at no place that is known.
	Pod string
}

// String is kind/namespace/name.
func (p Proxy) String() string {
	return strings.TrimSuffix(string(p.Kind)+"/"+p.Namespace+"/"+p.Gateway, "/")
}

// node is how such a proxy calls itself.
func (p Proxy) node() *corev3.Node {
	labels := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for k, v := range p.Labels {
		labels.Fields[k] = structpb.NewStringValue(v)
	}
	if p.Gateway != "" {
		labels.Fields["gateway.networking.k8s.io/gateway-name"] = structpb.NewStringValue(p.Gateway)
	}
	meta := &structpb.Struct{Fields: map[string]*structpb.Value{
		"NAMESPACE": structpb.NewStringValue(p.Namespace), "LABELS": structpb.NewStructValue(labels),
	}}
	if p.Pod != "" {
		meta.Fields["NAME"] = structpb.NewStringValue(p.Pod)
	}
	if p.Kind == Proxyless {
		meta.Fields["GENERATOR"] = structpb.NewStringValue("grpc")
	}
	return &corev3.Node{Id: string(p.Kind) + "~0.0.0.0~simulated." + p.Namespace + "~" + p.Namespace + ".svc.cluster.local", Metadata: meta}
}

// Proxy is what a proxy would be sent: clusters, endpoints, listeners, routes, each by name. There is nothing when its Gateway is not
// there, or is none that the control plane configures.
func (m *Mesh) Proxy(p Proxy) []Resource {
	var out []Resource
	for _, key := range m.scopes(p) {
		m.feed.forget(key)
		m.registry.Scopes().Open(key)
	}
	for _, typeURL := range []string{ClusterType, EndpointType, ListenerType, RouteType} {
		out = append(out, m.feed.scoped(m.registry.Scopes().ScopeOf(p.node(), server.Peer{}, typeURL), typeURL)...)
	}
	return out
}

// scopes are those that a proxy is in: endpoints have one of their own where its place is known.
func (m *Mesh) scopes(p Proxy) []string {
	key := registry.ScopeOf(p.node(), server.Peer{}, ListenerType)
	if near := m.registry.Scopes().ScopeOf(p.node(), server.Peer{}, EndpointType); near != key {
		return []string{key, near}
	}
	return []string{key}
}

// Release gives up what Proxy has computed; Problems are then no longer told of it.
func (m *Mesh) Release(p Proxy) {
	for _, key := range slices.Backward(m.scopes(p)) {
		m.registry.Scopes().Close(key)
		m.feed.forget(key)
	}
}

// collector keeps what is published.
type collector struct {
	// by scope, type and name; the scope of what everybody gets is empty
	resources map[string]map[string]map[string]Resource
}

func newCollector() *collector {
	return &collector{resources: map[string]map[string]map[string]Resource{}}
}

func (c *collector) forget(scope string) { delete(c.resources, scope) }

func (c *collector) global(typeURL string) []Resource { return c.scoped("", typeURL) }

func (c *collector) scoped(scope, typeURL string) []Resource {
	of := c.resources[scope][typeURL]
	out := make([]Resource, 0, len(of))
	for _, name := range slices.Sorted(maps.Keys(of)) {
		out = append(out, of[name])
	}
	return out
}

func (c *collector) take(scope, typeURL string, changed []delta.Resource, removed []string) {
	if c.resources[scope] == nil {
		c.resources[scope] = map[string]map[string]Resource{}
	}
	of := c.resources[scope][typeURL]
	if of == nil {
		of = make(map[string]Resource, len(changed))
		c.resources[scope][typeURL] = of
	}
	for _, name := range removed {
		delete(of, name)
	}
	for _, r := range changed {
		of[r.Name] = Resource{Type: typeURL, Name: r.Name, Any: r.Any}
	}
}

// Publish implements registry.Publisher.
func (c *collector) Publish(typeURL string, changed []delta.Resource, removed []string) {
	c.take("", typeURL, changed, removed)
}

// PublishScope implements registry.Publisher.
func (c *collector) PublishScope(scope string, updates ...server.Update) {
	for _, u := range updates {
		c.take(scope, u.TypeURL, u.Changed, u.Removed)
	}
}

// WithdrawScope implements registry.Publisher.
func (c *collector) WithdrawScope(scope string) { c.forget(scope) }
