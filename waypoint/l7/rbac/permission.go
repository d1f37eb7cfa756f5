package rbac

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	uritemplatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/match"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// permission compiles what may be done.
func permission(p *rbacv3.Permission) (matcher, error) {
	switch k := p.GetRule().(type) {
	case *rbacv3.Permission_Any:
		return constant(k.Any), nil
	case *rbacv3.Permission_AndRules:
		ms, err := list(k.AndRules.GetRules(), permission)
		return all(ms), strict.At(err, "and_rules")
	case *rbacv3.Permission_OrRules:
		ms, err := list(k.OrRules.GetRules(), permission)
		return one(ms), strict.At(err, "or_rules")
	case *rbacv3.Permission_NotRule:
		m, err := permission(k.NotRule)
		return not(m), strict.At(err, "not_rule")
	case *rbacv3.Permission_Header:
		m, err := header(k.Header)
		return m, strict.At(err, "header")
	case *rbacv3.Permission_UrlPath:
		m, err := urlPath(k.UrlPath)
		return m, strict.At(err, "url_path")
	case *rbacv3.Permission_DestinationIp:
		m, err := cidr(k.DestinationIp, destinationIP)
		return m, strict.At(err, "destination_ip")
	case *rbacv3.Permission_DestinationPort:
		port := k.DestinationPort
		return func(i *exchange.Info) bool { return uint32(i.Conn.Destination.Port()) == port }, nil
	case *rbacv3.Permission_DestinationPortRange:
		start, end := k.DestinationPortRange.GetStart(), k.DestinationPortRange.GetEnd()
		return func(i *exchange.Info) bool {
			p := int32(i.Conn.Destination.Port())
			return p >= start && p < end
		}, nil
	case *rbacv3.Permission_SourcedMetadata:
		m, err := sourced(k.SourcedMetadata)
		return m, strict.At(err, "sourced_metadata")
	case *rbacv3.Permission_Metadata:
		m, err := match.CompileMetadata(k.Metadata) //nolint:staticcheck // deprecated, and still sent
		return func(i *exchange.Info) bool { return m.Match(i) }, strict.At(err, "metadata")
	case *rbacv3.Permission_RequestedServerName:
		m, err := match.CompileString(k.RequestedServerName)
		return func(i *exchange.Info) bool { return m.Match(i.Conn.SNI) }, strict.At(err, "requested_server_name")
	case *rbacv3.Permission_UriTemplate:
		m, err := uriTemplate(k.UriTemplate)
		return m, strict.At(err, "uri_template")
	}
	return nil, strict.Errorf("rule", "is required and of a supported kind")
}

// list compiles a list of permissions or principals.
func list[T any](ps []T, compile func(T) (matcher, error)) ([]matcher, error) {
	out := make([]matcher, 0, len(ps))
	for i, p := range ps {
		m, err := compile(p)
		if err != nil {
			return nil, strict.AtIndex(err, "rules", i)
		}
		out = append(out, m)
	}
	return out, nil
}

func constant(v bool) matcher { return func(*exchange.Info) bool { return v } }

func not(m matcher) matcher { return func(i *exchange.Info) bool { return !m(i) } }

func one(ms []matcher) matcher { return func(i *exchange.Info) bool { return anyOf(ms, i) } }

func all(ms []matcher) matcher {
	return func(i *exchange.Info) bool {
		for _, m := range ms {
			if !m(i) {
				return false
			}
		}
		return true
	}
}

func header(p *routev3.HeaderMatcher) (matcher, error) {
	m, err := match.CompileHeader(p)
	if err != nil {
		return nil, err
	}
	return func(i *exchange.Info) bool { return m.Match(i.Head) }, nil
}

// sourced is dynamic metadata: what filters before this one found out.
func sourced(p *rbacv3.SourcedMetadata) (matcher, error) {
	if p.GetMetadataSource() != rbacv3.MetadataSource_DYNAMIC {
		return nil, strict.Errorf("metadata_source", "%v is not supported", p.GetMetadataSource())
	}
	m, err := match.CompileMetadata(p.GetMetadataMatcher())
	if err != nil {
		return nil, strict.At(err, "metadata_matcher")
	}
	return m.Match, nil
}

// urlPath compares the path without its query.
func urlPath(p *matcherv3.PathMatcher) (matcher, error) {
	m, err := match.CompileString(p.GetPath())
	if err != nil {
		return nil, strict.At(err, "path")
	}
	return func(i *exchange.Info) bool { return i.Head.Path != "" && m.Match(exchange.PathOnly(i.Head.Path)) }, nil
}

func uriTemplate(p *corev3.TypedExtensionConfig) (matcher, error) {
	m, err := strict.Unpack(p.GetTypedConfig())
	if err != nil {
		return nil, strict.At(err, "typed_config")
	}
	c, ok := m.(*uritemplatev3.UriTemplateMatchConfig)
	if !ok {
		return nil, strict.Errorf("typed_config", "type %s is not supported here", m.ProtoReflect().Descriptor().FullName())
	}
	re, err := templateRegexp(c.GetPathTemplate())
	if err != nil {
		return nil, strict.At(err, "typed_config.path_template")
	}
	return func(i *exchange.Info) bool { return re.MatchString(exchange.PathOnly(i.Head.Path)) }, nil
}

func destinationIP(i *exchange.Info) netip.Addr { return i.Conn.Destination.Addr().Unmap() }
func sourceIP(i *exchange.Info) netip.Addr      { return i.Conn.Source.Addr().Unmap() }
func directIP(i *exchange.Info) netip.Addr      { return i.Conn.Direct().Addr().Unmap() }

// remoteIP of x-forwarded-for is compared as it is written there: an IPv4-mapped address is an IPv6 one, as for Envoy.
func remoteIP(i *exchange.Info) netip.Addr { return i.Remote.Addr() }

func cidr(p *corev3.CidrRange, of func(*exchange.Info) netip.Addr) (matcher, error) {
	a, err := netip.ParseAddr(p.GetAddressPrefix())
	if err != nil {
		return nil, strict.Errorf("address_prefix", "%v", err)
	}
	pre, err := a.Prefix(int(p.GetPrefixLen().GetValue()))
	if err != nil {
		return nil, strict.Errorf("prefix_len", "%v", err)
	}
	return func(i *exchange.Info) bool { return pre.Contains(of(i)) }, nil
}
