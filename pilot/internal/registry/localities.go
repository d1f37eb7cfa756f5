package registry

import (
	"cmp"
	"maps"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pilot/translate/envoy"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// Proxies of one scope are configured alike but for their endpoints: which of those are near depends on where a proxy is. So endpoints
// have scopes of their own, by place; what looks the same from everywhere is encoded once for all of them.

// placeMark divides the key of the scope that a proxy is in from the place where it is.
const placeMark = "@"

// vantage is a scope of endpoints: the proxies of another scope that are at one place.
type vantage struct {
	key, of string
	at      envoy.Whereabouts
}

// proxyPlace is where a proxy runs: as its pod says, or its node, else as the proxy says itself; "" is not known. It is looked up once,
// when the proxy connects: pods do not move.
func (r *Registry) proxyPlace(node *corev3.Node) string {
	meta := node.GetMetadata().GetFields()
	name, namespace := meta["NAME"].GetStringValue(), meta["NAMESPACE"].GetStringValue()
	host := meta["NODE_NAME"].GetStringValue()
	locality := envoy.Locality{Region: node.GetLocality().GetRegion(), Zone: node.GetLocality().GetZone(), Subzone: node.GetLocality().GetSubZone()}
	if name == "" {
		_, rest, _ := strings.Cut(node.GetId(), "~")
		_, rest, _ = strings.Cut(rest, "~")
		rest, _, _ = strings.Cut(rest, "~")
		name, namespace = cutLast(rest, ".")
	}
	if pod, ok := r.pods.Get(namespace + "/" + name); ok {
		host = cmp.Or(pod.Node, host)
		object, _ := r.nodes.Get(host)
		if at := ambient.PodLocality(pod, object); at != nil {
			locality = envoy.Locality{Region: at.Region, Zone: at.Zone, Subzone: at.Subzone}
		}
	}
	parts := []string{locality.Region, locality.Zone, locality.Subzone, host}
	for _, part := range parts {
		if !plainText(part, "-_.") {
			return ""
		}
	}
	if place := strings.Join(parts, "/"); place != "///" {
		return place
	}
	return ""
}

// parseVantage reads the key of a scope of endpoints; false is another one.
func parseVantage(key string) (vantage, bool) {
	of, place, placed := strings.Cut(key, placeMark)
	parts := strings.Split(place, "/")
	if !placed || len(parts) != 4 {
		return vantage{}, false
	}
	return vantage{key: key, of: of, at: envoy.Whereabouts{
		Locality: envoy.Locality{Region: parts[0], Zone: parts[1], Subzone: parts[2]}, Node: parts[3],
	}}, true
}

// openVantage opens the scope that has the clusters, too: a client may ask for endpoints alone. Calls of this and of closeVantage and
// openScope do not overlap.
func (r *Registry) openVantage(v vantage) {
	r.openScope(v.of)
	r.proxies.vantages.Set(v)
}

func (r *Registry) closeVantage(v vantage) {
	r.proxies.vantages.Delete(v.key)
	r.closeScope(v.of)
}

func (r *Registry) openScope(key string) {
	p := &r.proxies
	if p.opened[key]++; p.opened[key] == 1 {
		p.scopes.Set(parseScope(key))
	}
}

func (r *Registry) closeScope(key string) {
	p := &r.proxies
	if p.opened[key]--; p.opened[key] == 0 {
		delete(p.opened, key)
		p.scopes.Delete(key)
	}
}

// deriveVantages makes a resource without a type for each: with it, a scope of endpoints is served also when there are none.
func (r *Registry) deriveVantages() coll.Collection[scoped] {
	p := &r.proxies
	p.vantagesByScope = coll.NewIndex(p.vantages, func(v vantage) []string { return []string{v.of} })
	return coll.Map("xds/vantages", p.vantages, scoped.key, func(f coll.Fetch, v vantage) (scoped, bool) {
		_, active := coll.FetchOne(f, p.active, v.of)
		return scoped{scope: v.key}, active
	}, coll.WithEqual(sameScoped))
}

// assignments are the endpoints of a destination: for those whose place is not known, and for each place.
func (r *Registry) assignments(f coll.Fetch, t target) []scoped {
	localities := r.envoyMesh(f).Localities(t.policy(), t.service.Proto.GetLoadBalancing())
	endpoints := r.endpointsOf(f, t)
	mesh := r.meshFor(f)
	see := func(scope string, at envoy.Whereabouts) scoped {
		at.Network, at.Cluster, at.Labels = mesh.Network, mesh.ClusterID, t.proxy.ownLabels()
		return encodeScoped(scope, EndpointType, t.name(), localities.Assignment(t.name(), endpoints, &at))
	}
	common := see(t.proxy.key, envoy.Whereabouts{})
	out := []scoped{common}
	for _, v := range coll.FetchIndex(f, r.proxies.vantagesByScope, t.proxy.key) {
		if localities.Relative() {
			out = append(out, see(v.key, v.at))
		} else {
			out = append(out, scoped{v.key, EndpointType, common.Resource})
		}
	}
	return out
}

// ownLabels are those of the proxy's pods, as far as the Gateway that it is deployed for tells.
func (p proxy) ownLabels() map[string]string {
	if p.gw == nil {
		return p.labels
	}
	out := maps.Clone(p.gw.Labels)
	if out == nil {
		out = map[string]string{}
	}
	if own := p.gw.Spec.Infrastructure; own != nil {
		for name, value := range own.Labels {
			out[string(name)] = string(value)
		}
	}
	maps.Copy(out, p.labels)
	return out
}

// unready is whether a destination's endpoints that are not ready are known to proxies: those count how many of the preferred ones can
// serve. While new endpoints are spared they are not: their time begins when a proxy first knows them.
func (r *Registry) unready(f coll.Fetch, t target) bool {
	policy := t.policy()
	return t.proxy.kind != proxylessScope && envoy.Warmup(policy.GetLoadBalancer()) == nil &&
		r.envoyMesh(f).Localities(policy, t.service.Proto.GetLoadBalancing()).Failover()
}
