package ambient

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/emptypb"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
)

const (
	staticStrictName    = "istio_converted_static_strict"
	convertedPeerPrefix = "converted_peer_authentication_"
)

// PeerAuthentication is the object itself; the alias keeps signatures short.
type PeerAuthentication = securityv1.PeerAuthentication

// mode is UNSET for a nil setting.
func mode(m *securityapi.PeerAuthentication_MutualTLS) securityapi.PeerAuthentication_MutualTLS_Mode {
	return m.GetMode()
}

const (
	unset  = securityapi.PeerAuthentication_MutualTLS_UNSET
	strict = securityapi.PeerAuthentication_MutualTLS_STRICT
)

// older reports whether a counts before b: the oldest object wins, then the name.
func older(a, b *PeerAuthentication) bool {
	if b == nil {
		return true
	}
	if !a.CreationTimestamp.Time.Equal(b.CreationTimestamp.Time) {
		return a.CreationTimestamp.Time.Before(b.CreationTimestamp.Time)
	}
	return a.Name < b.Name
}

// levels finds the objects that count for a workload: of the mesh, the namespace and the workload. Selectors in the root
// namespace have no effect.
func levels(mesh Mesh, all []*PeerAuthentication, namespace string, labels map[string]string) (root, ns, own *PeerAuthentication) {
	for _, p := range all {
		selector := p.Spec.GetSelector().GetMatchLabels()
		switch {
		case p.Namespace == mesh.RootNamespace && len(selector) == 0:
			if older(p, root) {
				root = p
			}
		case p.Namespace != namespace:
		case len(selector) == 0:
			if older(p, ns) {
				ns = p
			}
		case p.Namespace != mesh.RootNamespace && selects(selector, labels):
			if older(p, own) {
				own = p
			}
		}
	}
	return root, ns, own
}

// parentStrict is the mode that a workload's own object inherits.
func parentStrict(root, ns *PeerAuthentication) bool {
	is := false
	for _, p := range []*PeerAuthentication{root, ns} {
		if p != nil && mode(p.Spec.GetMtls()) != unset {
			is = mode(p.Spec.GetMtls()) == strict
		}
	}
	return is
}

// effectivePeerAuthentication returns the keys of the converted policies that a workload lists: at most one.
func effectivePeerAuthentication(mesh Mesh, all []*PeerAuthentication, namespace string, labels map[string]string) []string {
	root, ns, own := levels(mesh, all, namespace, labels)
	isStrict := parentStrict(root, ns)
	if own != nil {
		if converted := convertPeerAuthentication(own, isStrict); converted != nil {
			return []string{converted.Namespace + "/" + converted.Name}
		}
		if mode(own.Spec.GetMtls()) != unset {
			isStrict = mode(own.Spec.GetMtls()) == strict
		}
	}
	if isStrict {
		return []string{mesh.RootNamespace + "/" + staticStrictName}
	}
	return nil
}

// PeerAuthorizations are the policies that stand for the mesh's PeerAuthentications: the static one as soon as there is any, and one
// for each with exceptions by port.
func PeerAuthorizations(mesh Mesh, p *PeerAuthentication, all []*PeerAuthentication) []*security.Authorization {
	out := []*security.Authorization{StaticStrict(mesh)}
	if p.Namespace == mesh.RootNamespace || len(p.Spec.GetSelector().GetMatchLabels()) == 0 {
		return out
	}
	root, ns, _ := levels(mesh, all, p.Namespace, nil)
	if converted := convertPeerAuthentication(p, parentStrict(root, ns)); converted != nil {
		out = append(out, converted)
	}
	return out
}

// StaticStrict denies whatever comes without an identity.
func StaticStrict(mesh Mesh) *security.Authorization {
	return &security.Authorization{
		Name:      staticStrictName,
		Namespace: mesh.RootNamespace,
		Scope:     security.Scope_WORKLOAD_SELECTOR,
		Action:    security.Action_DENY,
		Rules:     []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{{NotPrincipals: anyIdentity()}}}}}},
	}
}

func anyIdentity() []*security.StringMatch {
	return []*security.StringMatch{{MatchType: &security.StringMatch_Presence{Presence: &emptypb.Empty{}}}}
}

// convertPeerAuthentication returns nil when the ports make no difference.
func convertPeerAuthentication(p *PeerAuthentication, parent bool) *security.Authorization {
	isStrict := parent
	if m := mode(p.Spec.GetMtls()); m != unset {
		isStrict = m == strict
	}
	var different []uint32
	for _, port := range slices.Sorted(maps.Keys(p.Spec.GetPortLevelMtls())) {
		if m := mode(p.Spec.GetPortLevelMtls()[port]); m != unset && (m == strict) != isStrict {
			different = append(different, port)
		}
	}
	if len(different) == 0 {
		return nil
	}
	out := &security.Authorization{
		Name:      convertedPeerPrefix + p.Name,
		Namespace: p.Namespace,
		Scope:     security.Scope_WORKLOAD_SELECTOR,
		Action:    security.Action_DENY,
	}
	if isStrict {
		rule := &security.Rule{Clauses: []*security.Clause{{Matches: []*security.Match{{NotPrincipals: anyIdentity()}}}}}
		for _, port := range different {
			rule.Clauses = append(rule.Clauses, &security.Clause{Matches: []*security.Match{{NotDestinationPorts: []uint32{port}}}})
		}
		out.Rules = []*security.Rule{rule}
		return out
	}
	for _, port := range different {
		match := &security.Match{NotPrincipals: anyIdentity(), DestinationPorts: []uint32{port}}
		out.Rules = append(out.Rules, &security.Rule{Clauses: []*security.Clause{{Matches: []*security.Match{match}}}})
	}
	return out
}
