package rbac

import (
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/match"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// principal compiles who may do it.
func principal(p *rbacv3.Principal) (matcher, error) {
	switch k := p.GetIdentifier().(type) {
	case *rbacv3.Principal_Any:
		return constant(k.Any), nil
	case *rbacv3.Principal_AndIds:
		ms, err := list(k.AndIds.GetIds(), principal)
		return all(ms), strict.At(err, "and_ids")
	case *rbacv3.Principal_OrIds:
		ms, err := list(k.OrIds.GetIds(), principal)
		return one(ms), strict.At(err, "or_ids")
	case *rbacv3.Principal_NotId:
		m, err := principal(k.NotId)
		return not(m), strict.At(err, "not_id")
	case *rbacv3.Principal_Authenticated_:
		m, err := authenticated(k.Authenticated)
		return m, strict.At(err, "authenticated.principal_name")
	case *rbacv3.Principal_SourceIp:
		m, err := cidr(k.SourceIp, sourceIP) //nolint:staticcheck // deprecated, and still sent
		return m, strict.At(err, "source_ip")
	case *rbacv3.Principal_DirectRemoteIp:
		m, err := cidr(k.DirectRemoteIp, directIP)
		return m, strict.At(err, "direct_remote_ip")
	case *rbacv3.Principal_RemoteIp:
		m, err := cidr(k.RemoteIp, remoteIP)
		return m, strict.At(err, "remote_ip")
	case *rbacv3.Principal_Header:
		m, err := header(k.Header)
		return m, strict.At(err, "header")
	case *rbacv3.Principal_UrlPath:
		m, err := urlPath(k.UrlPath)
		return m, strict.At(err, "url_path")
	case *rbacv3.Principal_SourcedMetadata:
		m, err := sourced(k.SourcedMetadata)
		return m, strict.At(err, "sourced_metadata")
	case *rbacv3.Principal_Metadata:
		m, err := match.CompileMetadata(k.Metadata) //nolint:staticcheck // deprecated, and still sent
		return func(i *exchange.Info) bool { return m.Match(i) }, strict.At(err, "metadata")
	case *rbacv3.Principal_FilterState:
		m, err := match.CompileState(k.FilterState)
		return m.Match, strict.At(err, "filter_state")
	}
	return nil, strict.Errorf("identifier", "is required and of a supported kind")
}

// authenticated is the identity of a connection whose TLS the chain itself ended: inside a tunnel there is none, as for Envoy.
func authenticated(p *rbacv3.Principal_Authenticated) (matcher, error) {
	if p.GetPrincipalName() == nil {
		return func(i *exchange.Info) bool { return i.Conn.TLS }, nil
	}
	m, err := match.CompileString(p.GetPrincipalName())
	if err != nil {
		return nil, err
	}
	return func(i *exchange.Info) bool { return i.Conn.TLS && i.Conn.Identity != "" && m.Match(i.Conn.Identity) }, nil
}
