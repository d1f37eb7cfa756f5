package registry

import (
	"time"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
	"github.com/isthmus-mesh/isthmus/pkg/coll"
)

// KeySet is a fetched document that tokens are verified with.
type KeySet struct{ Source, Document string }

// SetKeySets puts documents in place of what was fetched before.
func (r *Registry) SetKeySets(sets ...KeySet) { r.routing.keySets.Set(sets...) }

// FollowKeySources calls changed with all sources of documents that RequestAuthentications name and how long to wait for each (0: as
// long as usual), now and whenever they change, until stop is called. changed must be quick, and must not call back.
func (r *Registry) FollowKeySources(changed func(sources map[string]time.Duration)) (stop func()) {
	of := map[string]*securityv1.RequestAuthentication{}
	return r.routing.requestAuths.Register(func(events []coll.Event[*securityv1.RequestAuthentication]) {
		for _, e := range events {
			delete(of, e.Key)
			if e.New != nil {
				of[e.Key] = *e.New
			}
		}
		all := map[string]time.Duration{}
		for _, ra := range of {
			var wait time.Duration
			for _, rule := range ra.Spec.GetJwtRules() {
				wait = max(wait, rule.GetTimeout().AsDuration())
			}
			for _, source := range policy.JWKSSources(ra) {
				all[source] = max(all[source], wait)
			}
		}
		changed(all)
	})
}
