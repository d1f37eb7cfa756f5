package gateway

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// pieces are the http[] entries, with those of delegates in the place of the entries that delegate.
func (t *translation) pieces(vs *networkingv1.VirtualService) []*httpPiece {
	origin := virtualServiceOrigin(vs)
	var out []*httpPiece
	for i, in := range vs.Spec.Http {
		if in == nil {
			continue
		}
		piece := &httpPiece{in: in, path: field.NewPath("spec", "http").Index(i), namespace: vs.Namespace, origin: origin, reporter: origin}
		if in.Delegate == nil {
			out = append(out, piece)
			continue
		}
		out = append(out, t.delegate(piece)...)
	}
	return out
}

// delegate gives the pieces of the VirtualService that a piece delegates to; when that cannot be, the requests are refused.
func (t *translation) delegate(root *httpPiece) []*httpPiece {
	path := root.path.Child("delegate")
	refused := []*httpPiece{root}
	root.refused = true
	if len(root.in.Route) > 0 || root.in.Redirect != nil || root.in.DirectResponse != nil {
		t.problem(root.reporter, path, "a route that delegates has no route, redirect or directResponse of its own")
		return refused
	}
	namespace := root.in.Delegate.Namespace
	if namespace == "" {
		namespace = root.namespace
	}
	vs := t.view.VirtualService(namespace, root.in.Delegate.Name)
	switch {
	case vs == nil:
		t.missing(root.reporter, path, "there is no VirtualService %s/%s", namespace, root.in.Delegate.Name)
		return refused
	case len(vs.Spec.Hosts) > 0 || len(vs.Spec.Gateways) > 0:
		t.problem(root.reporter, path, "%s/%s has hosts or gateways of its own, and cannot be delegated to", namespace, vs.Name)
		return refused
	case !exported(vs.Spec.ExportTo, t.mesh.DefaultExportTo, namespace, root.namespace):
		t.problem(root.reporter, path, "%s/%s is not exported to this namespace", namespace, vs.Name)
		return refused
	}
	reporter := virtualServiceOrigin(vs)
	var out []*httpPiece
	for i, in := range vs.Spec.Http {
		at := field.NewPath("spec", "http").Index(i)
		if in == nil {
			continue
		}
		if in.Delegate != nil {
			t.problem(reporter, at.Child("delegate"), "a delegate cannot delegate")
			continue
		}
		piece := &httpPiece{path: at, namespace: vs.Namespace, origin: root.origin, reporter: reporter}
		if piece.in = t.mergeDelegate(root, in, reporter, at); piece.in != nil {
			out = append(out, piece)
		}
	}
	return out
}

// mergeDelegate gives the delegate's route with the root's matches and with what it leaves to the root; nil when a match of the one is
// within none of the other.
func (t *translation) mergeDelegate(root *httpPiece, in *networkingapi.HTTPRoute, reporter route.Origin, path *field.Path) *networkingapi.HTTPRoute {
	out := proto.Clone(in).(*networkingapi.HTTPRoute)
	switch {
	case len(root.in.Match) == 0:
	case len(in.Match) == 0:
		out.Match = root.in.Match
	default:
		out.Match = nil
		for i, d := range in.Match {
			before := len(out.Match)
			for _, r := range root.in.Match {
				if m := mergeMatch(r, d); m != nil {
					out.Match = append(out.Match, m)
				}
			}
			if len(out.Match) == before {
				t.problem(reporter, path.Child("match").Index(i), "the match is within none of the VirtualService that delegates, and the route is left out")
				return nil
			}
		}
	}
	inherit(root.in, out)
	return out
}

// inherit takes from the root what the delegate does not say.
func inherit(root, out *networkingapi.HTTPRoute) {
	if out.Rewrite == nil {
		out.Rewrite = root.Rewrite
	}
	if out.Timeout == nil {
		out.Timeout = root.Timeout
	}
	if out.Retries == nil {
		out.Retries = root.Retries
	}
	if out.Fault == nil {
		out.Fault = root.Fault
	}
	if out.Mirror == nil && len(out.Mirrors) == 0 {
		out.Mirror, out.Mirrors, out.MirrorPercentage = root.Mirror, root.Mirrors, root.MirrorPercentage
	}
	if out.CorsPolicy == nil {
		out.CorsPolicy = root.CorsPolicy
	}
	if out.Headers == nil {
		out.Headers = root.Headers
	}
	out.Name = joined(root.Name, out.Name)
}

// mergeMatch gives what matches both; nil when the delegate's is not within the root's.
func mergeMatch(root, delegate *networkingapi.HTTPMatchRequest) *networkingapi.HTTPMatchRequest {
	if root == nil {
		return delegate
	}
	if delegate == nil {
		return root
	}
	out := proto.Clone(delegate).(*networkingapi.HTTPMatchRequest)
	if root.IgnoreUriCase != out.IgnoreUriCase {
		return nil
	}
	for _, p := range []struct {
		root *networkingapi.StringMatch
		out  **networkingapi.StringMatch
	}{{root.Uri, &out.Uri}, {root.Scheme, &out.Scheme}, {root.Method, &out.Method}, {root.Authority, &out.Authority}} {
		if !within(*p.out, p.root) {
			return nil
		}
		if *p.out == nil {
			*p.out = p.root
		}
	}
	for _, p := range []struct {
		root map[string]*networkingapi.StringMatch
		out  *map[string]*networkingapi.StringMatch
	}{{root.Headers, &out.Headers}, {root.WithoutHeaders, &out.WithoutHeaders}, {root.QueryParams, &out.QueryParams}} {
		for name, m := range p.root {
			if own, found := (*p.out)[name]; found && !within(own, m) {
				return nil
			}
		}
		if len(p.root) > 0 {
			merged := maps.Clone(p.root)
			maps.Copy(merged, *p.out)
			*p.out = merged
		}
	}
	if root.Port != 0 && out.Port != 0 && root.Port != out.Port {
		return nil
	}
	if out.Port == 0 {
		out.Port = root.Port
	}
	switch {
	case len(out.Gateways) == 0:
		out.Gateways = root.Gateways
	case len(root.Gateways) > 0 && slices.ContainsFunc(out.Gateways, func(name string) bool { return !slices.Contains(root.Gateways, name) }):
		return nil
	}
	if out.SourceNamespace == "" {
		out.SourceNamespace = root.SourceNamespace
	}
	if len(root.SourceLabels) > 0 {
		merged := maps.Clone(root.SourceLabels)
		for name, value := range out.SourceLabels {
			if v, found := merged[name]; found && v != value {
				return nil
			}
			merged[name] = value
		}
		out.SourceLabels = merged
	}
	out.Name = joined(root.Name, out.Name)
	if out.StatPrefix == "" {
		out.StatPrefix = root.StatPrefix
	}
	return out
}

// joined is the name of what is of both.
func joined(root, delegate string) string {
	if root == "" || delegate == "" {
		return root + delegate
	}
	return root + "-" + delegate
}

// within is whether every value that the one takes is taken by the other, as far as exact values and prefixes tell.
func within(narrow, wide *networkingapi.StringMatch) bool {
	if narrow == nil || wide == nil || proto.Equal(narrow, wide) {
		return true
	}
	prefix := wide.GetPrefix()
	if prefix == "" {
		return false
	}
	switch m := narrow.MatchType.(type) {
	case *networkingapi.StringMatch_Exact:
		return strings.HasPrefix(m.Exact, prefix)
	case *networkingapi.StringMatch_Prefix:
		return strings.HasPrefix(m.Prefix, prefix)
	}
	return false
}
