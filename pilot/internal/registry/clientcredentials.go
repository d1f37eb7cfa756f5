package registry

import (
	"slices"

	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// clientCredential is what a cluster of a scope presents to servers and trusts in them.
type clientCredential struct {
	key, scope string
	origin     route.Origin
	names      []string
}

// deriveClientCredentials comes after the destinations. Few of them have any.
func (r *Registry) deriveClientCredentials(destinations coll.Collection[destination]) {
	c := &r.credentials
	c.client = coll.FlatMap("credentials/clients", destinations, func(c clientCredential) string { return c.key }, func(f coll.Fetch, d destination) []clientCredential {
		if d.proxy.kind == proxylessScope {
			return nil
		}
		t, ok := r.resolve(f, d)
		if !ok {
			return nil
		}
		if own := r.backendTLS(f, t); own != nil {
			if own.Authority == "" || own.Refused != "" {
				return nil
			}
			return []clientCredential{{key: d.key(), scope: d.proxy.key, origin: own.Policy, names: []string{own.Authority}}}
		}
		if t.rule == nil {
			return nil
		}
		certificate, authority := credential.ClientNames(t.policy().GetTls())
		out := clientCredential{key: d.key(), scope: d.proxy.key, origin: route.Origin{
			Group: groupNetworking, Version: "v1", Kind: "DestinationRule", Namespace: t.rule.Namespace, Name: t.rule.Name,
		}}
		for _, name := range []string{certificate, authority} {
			if name != "" {
				out.names = append(out.names, name)
			}
		}
		if len(out.names) == 0 {
			return nil
		}
		return []clientCredential{out}
	}, coll.WithEqual(func(a, b clientCredential) bool { return a.origin == b.origin && slices.Equal(a.names, b.names) }))
	c.clientByScope = coll.NewIndex(c.client, func(c clientCredential) []string { return []string{c.scope} })
}
