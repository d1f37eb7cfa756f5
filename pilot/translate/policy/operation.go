package policy

import (
	"fmt"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	uritemplatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

const (
	attributeFilter = "experimental.envoy.filters."
	uriTemplateName = "envoy.path.match.uri_template.uri_template_matcher"
)

// operation translates one value of an attribute of what is asked for.
func (t translator) operation(key, value string) (*rbacv3.Permission, error) {
	if value == "" {
		return nil, fmt.Errorf("the value of %s is empty", key)
	}
	switch key {
	case "hosts", "methods", "paths":
		if t.tcp {
			return nil, errHTTPOnly(key)
		}
		return httpOperation(key, value)
	case "destination.ip":
		cidr, err := cidrRange(value)
		if err != nil {
			return nil, err
		}
		return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationIp{DestinationIp: cidr}}, nil
	case "destination.port":
		port, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("%q is not a port", value)
		}
		return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationPort{DestinationPort: uint32(port)}}, nil
	case "connection.sni":
		return &rbacv3.Permission{Rule: &rbacv3.Permission_RequestedServerName{RequestedServerName: stringMatcher(value, false)}}, nil
	}
	if strings.HasPrefix(key, attributeFilter) {
		return filterMetadata(key, value)
	}
	return nil, fmt.Errorf("%s is not a known attribute", key)
}

func httpOperation(key, value string) (*rbacv3.Permission, error) {
	switch key {
	case "hosts":
		return headerPermission(":authority", value, true), nil
	case "methods":
		return headerPermission(":method", value, false), nil
	}
	if !strings.ContainsAny(value, "{}") {
		path := &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{Path: stringMatcher(value, false)}}
		return &rbacv3.Permission{Rule: &rbacv3.Permission_UrlPath{UrlPath: path}}, nil
	}
	template, err := uriTemplate(value)
	if err != nil {
		return nil, err
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_UriTemplate{UriTemplate: &corev3.TypedExtensionConfig{
		Name:        uriTemplateName,
		TypedConfig: mustAny(&uritemplatev3.UriTemplateMatchConfig{PathTemplate: template}),
	}}}, nil
}

// templateLiterals are the characters that Envoy takes in a template, in the order of RFC 3986: unreserved, escaped, sub-delims.
const templateLiterals = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&'()+,;:@="

// maxTemplate is Envoy's limit.
const maxTemplate = 256

// uriTemplate turns {*} and {**} into what Envoy calls them. An operator is a whole segment, and {**} is the last one. Nothing else may
// come through: Envoy aborts at a template that it cannot parse.
func uriTemplate(path string) (string, error) {
	if !strings.HasPrefix(path, "/") {
		return "", fmt.Errorf("the path template %q does not begin with /", path)
	}
	segments, last := strings.Split(path, "/"), false
	for i, s := range segments {
		switch {
		case s == "" && i != 0 && i != len(segments)-1:
			return "", fmt.Errorf("the path template %q has an empty segment", path)
		case (s == "{*}" || s == "{**}") && last:
			return "", fmt.Errorf("the path template %q has an operator after {**}", path)
		case s == "{*}":
			segments[i] = "*"
		case s == "{**}":
			segments[i], last = "**", true
		case strings.ContainsAny(s, "{}*"):
			return "", fmt.Errorf("the path template %q has more than an operator in the segment %q", path, s)
		case strings.Trim(s, templateLiterals) != "":
			return "", fmt.Errorf("the path template %q has characters in the segment %q that a path does not have", path, s)
		}
	}
	out := strings.Join(segments, "/")
	if len(out) > maxTemplate {
		return "", fmt.Errorf("the path template is longer than %d characters", maxTemplate)
	}
	return out, nil
}

func headerPermission(name, value string, ignoreCase bool) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: headerMatcher(name, value, ignoreCase)}}
}

func headerMatcher(name, value string, ignoreCase bool) *routev3.HeaderMatcher {
	if value == "*" {
		return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
	}
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: stringMatcher(value, ignoreCase)}}
}

// filterMetadata reads experimental.envoy.filters.NAME[KEY]: the metadata KEY that the filter envoy.filters.NAME has left. A value
// in brackets is looked for in a list.
func filterMetadata(key, value string) (*rbacv3.Permission, error) {
	name, path, ok := strings.Cut(strings.TrimPrefix(key, "experimental."), "[")
	if !ok || len(path) < 2 || !strings.HasSuffix(path, "]") {
		return nil, fmt.Errorf("%s is not of the form %sNAME[KEY]", key, attributeFilter)
	}
	var match *matcherv3.ValueMatcher
	if strings.HasPrefix(value, "[") && strings.HasSuffix(value, "]") {
		match = listContains(stringMatcher(strings.Trim(value, "[]"), false))
	} else {
		match = stringValue(stringMatcher(value, false))
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_SourcedMetadata{
		SourcedMetadata: dynamicMetadata(name, match, strings.TrimSuffix(path, "]")),
	}}, nil
}

func anyPermission() *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}}
}

func notPermission(p *rbacv3.Permission) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: p}}
}

func orPermissions(ps []*rbacv3.Permission) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: &rbacv3.Permission_Set{Rules: ps}}}
}

func andPermissions(ps []*rbacv3.Permission) *rbacv3.Permission {
	if len(ps) == 0 {
		ps = []*rbacv3.Permission{anyPermission()}
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: ps}}}
}
