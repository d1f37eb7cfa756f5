package registry

import (
	"maps"
	"slices"

	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// KeySet is a fetched document that tokens are verified with.
type KeySet struct{ Source, Document string }

// SetKeySets puts documents in place of what was fetched before.
func (r *Registry) SetKeySets(sets ...KeySet) { r.routing.keySets.Set(sets...) }

// FollowKeySources calls changed with all sources of documents that RequestAuthentications name, now and whenever they change, until
// stop is called. changed must be quick, and must not call back.
func (r *Registry) FollowKeySources(changed func(sources []string)) (stop func()) {
	of := map[string][]string{}
	return r.routing.requestAuths.Register(func(events []coll.Event[*securityv1.RequestAuthentication]) {
		for _, e := range events {
			delete(of, e.Key)
			if e.New != nil {
				of[e.Key] = policy.JWKSSources(*e.New)
			}
		}
		all := map[string]struct{}{}
		for _, sources := range of {
			for _, s := range sources {
				all[s] = struct{}{}
			}
		}
		changed(slices.Sorted(maps.Keys(all)))
	})
}
