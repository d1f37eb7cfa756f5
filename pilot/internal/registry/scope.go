package registry

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/isthmus-mesh/isthmus/pilot/translate/envoy"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// Type URLs of what proxies are configured with.
const (
	ListenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	ClusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	RouteType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	EndpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"

	labelGatewayName = "gateway.networking.k8s.io/gateway-name"
)

// scopeKind is what a proxy is.
type scopeKind int

const (
	unsupported scopeKind = iota
	waypointScope
	routerScope
	proxylessScope
)

// scope is a set of proxies that are configured alike.
type scope struct {
	key       string
	kind      scopeKind
	namespace string
	families  envoy.Families
	gateway   string            // name of the Gateway it was deployed for; empty for a classic gateway
	labels    map[string]string // of the pods, for routers: selectors are matched against them
}

// ScopeOf names the scope of a proxy, empty for types that everybody gets the same of. Proxies of one Gateway share a scope; for
// endpoints it is divided by place, see proxyPlace. What is
// no proxy that we configure gets a scope in which nothing is ever published, as an empty configuration would be wrong.
func ScopeOf(node *corev3.Node, peer server.Peer, typeURL string) string {
	switch typeURL {
	case SecretType:
		return secretScopeOf(node, peer)
	case ListenerType, ClusterType, RouteType, EndpointType:
		return nodeScope(node).key
	case WorkloadType:
		return workloadScope
	}
	return ""
}

func nodeScope(node *corev3.Node) scope {
	kind, rest, _ := strings.Cut(node.GetId(), "~")
	meta := node.GetMetadata().GetFields()
	s := scope{namespace: meta["NAMESPACE"].GetStringValue()}
	if s.namespace == "" {
		_, domain := cutLast(rest, "~")
		s.namespace, _, _ = strings.Cut(domain, ".svc.")
	}
	labels := map[string]string{}
	for k, v := range meta["LABELS"].GetStructValue().GetFields() {
		if !perPod(k) {
			labels[k] = v.GetStringValue()
		}
	}
	s.gateway = labels[labelGatewayName]
	switch {
	case meta["GENERATOR"].GetStringValue() == "grpc":
		s.kind, s.gateway, s.key = proxylessScope, "", "grpc/"+s.namespace
	case kind == "waypoint":
		s.gateway = cmp.Or(s.gateway, meta["GATEWAY_NAME"].GetStringValue())
		s.families = familiesOf(node)
		s.kind, s.key = waypointScope, "waypoint"+familyMarks[s.families]+"/"+s.namespace+"/"+s.gateway
	case kind == "router":
		s.families = familiesOf(node)
		s.kind, s.labels, s.key = routerScope, labels, "router"+familyMarks[s.families]+"/"+s.namespace+"/"+joinLabels(labels)
	default:
		s.key = "unsupported/" + kind
	}
	if !s.plain() {
		return scope{key: "unsupported/names"}
	}
	return s
}

// plain is whether the parts of the key are such as Kubernetes has: a node says of itself what it likes, and a separator in a label
// would make the key one of another proxy's resources.
func (s *scope) plain() bool {
	for k, v := range s.labels {
		if !plainText(k, "-_./") || !plainText(v, "-_.") {
			return false
		}
	}
	return plainText(s.namespace, "-") && plainText(s.gateway, "-.")
}

func plainText(s, more string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(more, c) < 0 {
			return false
		}
	}
	return true
}

// cutLast splits at the last separator; without one, all is before it.
func cutLast(s, sep string) (before, after string) {
	if at := strings.LastIndex(s, sep); at >= 0 {
		return s[:at], s[at+len(sep):]
	}
	return s, ""
}

// perPod reports whether a label tells pods of one workload apart.
func perPod(label string) bool {
	switch label {
	case "pod-template-hash", "controller-revision-hash", "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index":
		return true
	}
	return false
}

// joinLabels and splitLabels turn labels into a part of a key and back. Labels have neither of the separators (see plain).
func joinLabels(labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ",")
}

func splitLabels(text string) map[string]string {
	out := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		if k, v, ok := strings.Cut(part, "="); ok {
			out[k] = v
		}
	}
	return out
}

// parseScope reads a key that nodeScope made.
func parseScope(key string) scope {
	kind, rest, _ := strings.Cut(key, "/")
	namespace, tail, _ := strings.Cut(rest, "/")
	s := scope{key: key, namespace: namespace}
	kind, mark, marked := strings.Cut(kind, "-")
	if marked {
		s.families = envoy.Families(max(0, slices.Index(familyMarks[:], "-"+mark)))
	}
	switch kind {
	case "grpc":
		s.kind = proxylessScope
	case "waypoint":
		s.kind, s.gateway = waypointScope, tail
	case "router":
		s.kind, s.labels = routerScope, splitLabels(tail)
		s.gateway = s.labels[labelGatewayName]
	}
	return s
}

// Scopes says which proxy sees what, and computes only what is asked for.
func (r *Registry) Scopes() server.Scopes { return scopes{r} }

type scopes struct{ r *Registry }

// ScopeOf implements server.Scopes.
func (s scopes) ScopeOf(node *corev3.Node, peer server.Peer, typeURL string) string {
	key := ScopeOf(node, peer, typeURL)
	if typeURL != EndpointType || parseScope(key).kind == unsupported {
		return key
	}
	if place := s.r.proxyPlace(node); place != "" {
		key += placeMark + place
	}
	return key
}

// Open implements server.Scopes.
func (s scopes) Open(key string) {
	if key == workloadScope {
		s.r.setFeed(func(w *workloadFeed) { w.wanted = true })
		return
	}
	if secrets, ok := parseSecretScope(key); ok {
		s.r.credentials.scopes.Set(secrets)
		return
	}
	if v, ok := parseVantage(key); ok {
		s.r.openVantage(v)
		return
	}
	s.r.openScope(key)
}

// Close implements server.Scopes.
func (s scopes) Close(key string) {
	if key == workloadScope {
		s.r.setFeed(func(w *workloadFeed) { w.wanted = false })
		return
	}
	if _, ok := parseSecretScope(key); ok {
		s.r.credentials.scopes.Delete(key)
		return
	}
	if v, ok := parseVantage(key); ok {
		s.r.closeVantage(v)
		return
	}
	s.r.closeScope(key)
}
