package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	meshapi "istio.io/api/mesh/v1alpha1"
)

const (
	// peerPrincipal is the filter state in which a waypoint keeps the URI of the client's certificate.
	peerPrincipal = "io.istio.peer_principal"
	// sourceAddress is the filter state in which a waypoint keeps the address from which the tunnel came.
	sourceAddress = "envoy.filters.listener.original_dst.remote_ip"
	uriScheme     = "spiffe://"
	// defaultTrustDomain stands for the mesh's own, whatever that is called.
	defaultTrustDomain = "cluster.local"

	attributeHeader = "request.headers["
	attributeClaims = "request.auth.claims["
)

// isSource tells attributes of who asks from attributes of what is asked for.
func isSource(key string) bool {
	for _, p := range []string{"source.", "request.", "remote."} {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	return false
}

// source translates one value of an attribute of who asks.
func (t translator) source(key, value string) (*rbacv3.Principal, error) {
	if value == "" {
		return nil, fmt.Errorf("the value of %s is empty", key)
	}
	if t.tcp && (key == "remote.ip" || strings.HasPrefix(key, "request.")) {
		return nil, errHTTPOnly(key)
	}
	switch key {
	case "source.principal":
		return t.principalNamed(value), nil
	case "source.namespace":
		return t.peer(regexMatcher(uriScheme + "[^/]+/ns/" + globRegex(value) + "/sa/.+")), nil
	case "source.serviceAccount":
		namespace, name, ok := strings.Cut(value, "/")
		if !ok {
			namespace, name = t.namespace, value
		}
		return t.peer(regexMatcher(uriScheme + "[^/]+/ns/" + regexp.QuoteMeta(namespace) + "/sa/" + regexp.QuoteMeta(name))), nil
	case "source.trustDomain":
		return t.peer(regexMatcher(uriScheme + globRegex(value) + "/.+")), nil
	case "source.ip":
		return t.sourceIP(value)
	case "remote.ip":
		cidr, err := cidrRange(value)
		if err != nil {
			return nil, err
		}
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_RemoteIp{RemoteIp: cidr}}, nil
	case "request.auth.principal":
		return requestPrincipal(value), nil
	case "request.auth.audiences":
		return claim(value, "aud"), nil
	case "request.auth.presenter":
		return claim(value, "azp"), nil
	}
	if name, ok := bracketed(key, attributeHeader); ok {
		if !isHeaderName(name) {
			return nil, fmt.Errorf("%q is not the name of a header", name)
		}
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_Header{Header: headerMatcher(name, value, false)}}, nil
	}
	if path, ok := bracketed(key, attributeClaims); ok {
		return claim(value, strings.Split(path, "][")...), nil
	}
	return nil, fmt.Errorf("%s is not a known attribute", key)
}

// bracketed returns what stands between prefix, which ends in a bracket, and the closing one.
func bracketed(key, prefix string) (string, bool) {
	inner, ok := strings.CutPrefix(key, prefix)
	if !ok {
		return "", false
	}
	inner, ok = strings.CutSuffix(inner, "]")
	return inner, ok && inner != ""
}

func (t translator) sourceIP(value string) (*rbacv3.Principal, error) {
	cidr, err := cidrRange(value)
	if err != nil {
		return nil, err
	}
	if t.proxy == Waypoint {
		// The connection between a waypoint's listeners has no remote IP, and remote_ip believes a header that clients write.
		blocks := []*xdscorev3.CidrRange{{AddressPrefix: cidr.GetAddressPrefix(), PrefixLen: cidr.GetPrefixLen()}}
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_FilterState{FilterState: &matcherv3.FilterStateMatcher{
			Key: sourceAddress, Matcher: &matcherv3.FilterStateMatcher_AddressMatch{AddressMatch: &matcherv3.AddressMatcher{Ranges: blocks}},
		}}}, nil
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_DirectRemoteIp{DirectRemoteIp: cidr}}, nil
}

// principalNamed matches identities, which are written without their scheme. One of the mesh's own trust domain is looked for under
// all its names.
func (t translator) principalNamed(value string) *rbacv3.Principal {
	domain, rest, ok := strings.Cut(value, "/")
	if !ok || !slices.Contains(t.trustDomains, domain) && domain != defaultTrustDomain {
		return t.peer(uriMatcher(value))
	}
	var names []*rbacv3.Principal
	for _, d := range t.trustDomains {
		names = append(names, t.peer(uriMatcher(d+"/"+rest)))
	}
	if len(names) == 1 {
		return names[0]
	}
	return orPrincipals(names)
}

// uriMatcher matches a SPIFFE URI, whose scheme the value leaves out.
func uriMatcher(value string) *matcherv3.StringMatcher {
	switch {
	case value == "*":
		return regexMatcher(".+")
	case strings.HasPrefix(value, "*"):
		return regexMatcher(uriScheme + ".*" + regexp.QuoteMeta(value[1:]))
	case strings.HasSuffix(value, "*"):
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: uriScheme + value[:len(value)-1]}}
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: uriScheme + value}}
}

// peer matches the identity of who has connected, where the proxy finds it.
func (t translator) peer(m *matcherv3.StringMatcher) *rbacv3.Principal {
	if t.proxy == Waypoint {
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_FilterState{FilterState: &matcherv3.FilterStateMatcher{
			Key: peerPrincipal, Matcher: &matcherv3.FilterStateMatcher_StringMatch{StringMatch: m},
		}}}
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Authenticated_{
		Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: m},
	}}
}

func trustDomains(mesh *meshapi.MeshConfig) []string {
	own := mesh.GetTrustDomain()
	if own == "" {
		own = defaultTrustDomain
	}
	out := []string{own}
	for _, alias := range mesh.GetTrustDomainAliases() {
		if alias != "" && !slices.Contains(out, alias) {
			out = append(out, alias)
		}
	}
	return out
}

func anyPrincipal() *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Any{Any: true}}
}

func notPrincipal(p *rbacv3.Principal) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: p}}
}

func orPrincipals(ps []*rbacv3.Principal) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: &rbacv3.Principal_Set{Ids: ps}}}
}

func andPrincipals(ps []*rbacv3.Principal) *rbacv3.Principal {
	if len(ps) == 0 {
		ps = []*rbacv3.Principal{anyPrincipal()}
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: ps}}}
}
