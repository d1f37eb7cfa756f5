package gateway

import (
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

func (t *translation) checkPathModifier(o routeObject, at *field.Path, in *gatewayv1.HTTPPathModifier) bool {
	if in == nil {
		return true
	}
	value := in.ReplaceFullPath
	switch in.Type {
	case gatewayv1.FullPathHTTPPathModifier:
	case gatewayv1.PrefixMatchHTTPPathModifier:
		value = in.ReplacePrefixMatch
	default:
		t.problem(o.origin(), at.Child("type"), "%s is not supported", in.Type)
		return false
	}
	if value == nil {
		t.problem(o.origin(), at, "the path is missing")
		return false
	}
	return t.check(o.origin(), at, route.CheckValue(*value))
}

func (t *translation) checkRedirect(o routeObject, at *field.Path, in *gatewayv1.HTTPRequestRedirectFilter) bool {
	ok := t.checkPathModifier(o, at.Child("path"), in.Path)
	if in.Hostname != nil {
		ok = t.check(o.origin(), at.Child("hostname"), route.CheckValue(string(*in.Hostname))) && ok
	}
	if in.Scheme != nil && *in.Scheme != "http" && *in.Scheme != "https" {
		t.problem(o.origin(), at.Child("scheme"), "%q is neither http nor https", *in.Scheme)
		ok = false
	}
	if in.StatusCode != nil {
		switch *in.StatusCode {
		case 301, 302, 303, 307, 308:
		default:
			t.problem(o.origin(), at.Child("statusCode"), "%d is no code of a redirect", *in.StatusCode)
			ok = false
		}
	}
	return ok
}

// redirectFor gives the redirect of a rule for one of its matches. Without a port in the filter, the one of the listener stays
// unless a scheme asks for its own.
func (t *translation) redirectFor(in *gatewayv1.HTTPRequestRedirectFilter, match route.Path) *route.Redirect {
	out := &route.Redirect{Code: 302}
	if in.Scheme != nil {
		out.Scheme = *in.Scheme
	}
	if in.Hostname != nil {
		out.Host = string(*in.Hostname)
	}
	switch {
	case in.Port != nil:
		out.Port = uint32(*in.Port)
	case in.Scheme == nil:
		out.Port = t.port
	}
	out.Port = t.shownPort(out.Scheme, out.Port)
	if in.StatusCode != nil {
		out.Code = uint32(*in.StatusCode)
	}
	if in.Path != nil && in.Path.Type == gatewayv1.FullPathHTTPPathModifier {
		if out.Path = *in.Path.ReplaceFullPath; out.Path == "" {
			out.Path = "/"
		}
	} else if in.Path != nil {
		out.Prefix, out.Regex = replacePrefix(*in.Path.ReplacePrefixMatch, match)
	}
	return out
}

// rewriteFor gives the path rewrite of a rule for one of its matches.
func rewriteFor(in *gatewayv1.HTTPPathModifier, match route.Path) (out route.Rewrite) {
	switch {
	case in == nil:
	case in.Type == gatewayv1.FullPathHTTPPathModifier:
		value := *in.ReplaceFullPath
		if value == "" {
			value = "/"
		}
		out.Regex = &route.RegexRewrite{Pattern: "/.*", Substitution: literalSubstitution(value)}
	default:
		out.Prefix, out.Regex = replacePrefix(*in.ReplacePrefixMatch, match)
	}
	return out
}

// replacePrefix replaces the segments that matched, and keeps exactly one slash between the new ones and the rest.
func replacePrefix(value string, match route.Path) (prefix string, regex *route.RegexRewrite) {
	value = strings.TrimRight(value, "/")
	switch {
	case match.Kind == route.PathAny:
		return value + "/", nil
	case value == "":
		return "", &route.RegexRewrite{Pattern: "^" + regexp.QuoteMeta(match.Value) + "(/?)(.*)", Substitution: `/\2`}
	}
	return value, nil
}

func literalSubstitution(text string) string { return strings.ReplaceAll(text, `\`, `\\`) }
