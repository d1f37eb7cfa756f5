package policy

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	exprv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/rate_limit_descriptors/expr/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
	"github.com/isthmus-mesh/isthmus/pkg/kube/policyapi"
)

// Expressions of CEL, which Envoy's descriptors have for what no action of its own finds. Our engine knows these, and no others.
const (
	exprRoute     = "xds.route_name"
	exprPath      = "request.url_path"
	exprNamespace = "re.extract(request.headers['" + sourceHeader + "'], '^spiffe://[^/]+/ns/([^/]+)/sa/[^/]+$', r'\\1')"
	exprAccount   = "re.extract(request.headers['" + sourceHeader + "'], '^spiffe://[^/]+/ns/([^/]+)/sa/([^/]+)$', r'\\1/\\2')"
)

// keyName is the name of a key in descriptors. Envoy gives the remote address its own.
func keyName(k policyapi.Key) string {
	switch k.Type {
	case policyapi.RemoteAddress:
		return "remote_address"
	case policyapi.Header:
		return "header:" + strings.ToLower(k.Name)
	case policyapi.Claim:
		return "claim:" + k.Name
	case policyapi.Identity, policyapi.ServiceAccount, policyapi.Namespace, policyapi.Path, policyapi.Method, policyapi.Route:
	}
	return string(k.Type)
}

// mayLack is whether there are requests without the key.
func mayLack(k policyapi.Key) bool { return k.Type.OfSource() || k.Type.Named() }

func keyActions(keys []policyapi.Key) []*routev3.RateLimit_Action {
	var out []*routev3.RateLimit_Action
	for _, k := range keys {
		out = append(out, keyAction(k))
	}
	return out
}

func keyAction(k policyapi.Key) *routev3.RateLimit_Action {
	name := keyName(k)
	switch k.Type {
	case policyapi.Identity:
		return headerAction(name, sourceHeader)
	case policyapi.ServiceAccount:
		return expression(name, exprAccount)
	case policyapi.Namespace:
		return expression(name, exprNamespace)
	case policyapi.Header:
		return headerAction(name, strings.ToLower(k.Name))
	case policyapi.Claim:
		return metadataAction(name, routev3.RateLimit_Action_MetaData_DYNAMIC, true, jwtFilterName, payloadKey, k.Name)
	case policyapi.Method:
		return headerAction(name, ":method")
	case policyapi.Route:
		return expression(name, exprRoute)
	case policyapi.RemoteAddress:
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_RemoteAddress_{RemoteAddress: &routev3.RateLimit_Action_RemoteAddress{}}}
	case policyapi.Path:
	}
	return expression(name, exprPath)
}

func generic(key, value string) *routev3.RateLimit_Action {
	return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_GenericKey_{
		GenericKey: &routev3.RateLimit_Action_GenericKey{DescriptorKey: key, DescriptorValue: value},
	}}
}

func headerAction(key, header string) *routev3.RateLimit_Action {
	return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_RequestHeaders_{
		RequestHeaders: &routev3.RateLimit_Action_RequestHeaders{HeaderName: header, DescriptorKey: key, SkipIfAbsent: true},
	}}
}

func metadataAction(key string, source routev3.RateLimit_Action_MetaData_Source, skip bool, filter string, path ...string) *routev3.RateLimit_Action {
	at := &metadatav3.MetadataKey{Key: filter}
	for _, p := range path {
		at.Path = append(at.Path, &metadatav3.MetadataKey_PathSegment{Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: p}})
	}
	return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_Metadata{
		Metadata: &routev3.RateLimit_Action_MetaData{DescriptorKey: key, MetadataKey: at, Source: source, SkipIfAbsent: skip},
	}}
}

func expression(key, text string) *routev3.RateLimit_Action {
	return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_Extension{Extension: &corev3.TypedExtensionConfig{
		Name: "envoy.rate_limit_descriptors.expr",
		TypedConfig: mustAny(&exprv3.Descriptor{
			DescriptorKey: key, SkipIfError: true, ExprSpecifier: &exprv3.Descriptor_Text{Text: text},
		}),
	}}}
}

// routeObjectPath is what the metadata of routes say of the object that they come from.
func routeObjectPath(kind, namespace, name string) string {
	return route.Origin{Group: "gateway.networking.k8s.io", Version: "v1", Kind: kind, Namespace: namespace, Name: name}.Path()
}
