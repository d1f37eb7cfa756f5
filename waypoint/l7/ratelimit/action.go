package ratelimit

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	exprv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/rate_limit_descriptors/expr/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// Expressions of CEL that are known; there is no general engine for descriptors.
const (
	// ExprRoute is the name of the route, ExprPath the path without query.
	ExprRoute = "xds.route_name"
	ExprPath  = "request.url_path"
	// SourceHeader carries the client's identity from one filter to the next, and goes no further. What clients send there is removed.
	SourceHeader = "x-isthmus-ratelimit-source"
	// ExprNamespace and ExprAccount are the namespace, and namespace and name, of a SPIFFE identity of Istio's form in SourceHeader.
	ExprNamespace = "re.extract(request.headers['" + SourceHeader + "'], '^spiffe://[^/]+/ns/([^/]+)/sa/[^/]+$', r'\\1')"
	ExprAccount   = "re.extract(request.headers['" + SourceHeader + "'], '^spiffe://[^/]+/ns/([^/]+)/sa/([^/]+)$', r'\\1/\\2')"
)

// action finds the value of one pair of a descriptor.
type action struct {
	key  string
	kind actionKind
	text string   // the value, or the name of a header, or a filter
	path []string // of metadata
	// otherwise is the value of metadata that are not there, unless it is empty.
	otherwise string
	// skip is whether a descriptor goes on without a pair that has no value.
	skip bool
}

type actionKind uint8

const (
	literal actionKind = iota
	header
	remoteAddress
	dynamicMetadata
	routeMetadata
	routeName
	pathOnly
	sourceNamespace
	sourceAccount
)

func compileAction(p *routev3.RateLimit_Action) (a action, err error) {
	switch k := p.GetActionSpecifier().(type) {
	case *routev3.RateLimit_Action_GenericKey_:
		a = action{key: or(k.GenericKey.GetDescriptorKey(), "generic_key"), text: k.GenericKey.GetDescriptorValue()}
		if a.text == "" {
			return a, strict.Errorf("generic_key.descriptor_value", "is required")
		}
	case *routev3.RateLimit_Action_RequestHeaders_:
		a = action{key: k.RequestHeaders.GetDescriptorKey(), kind: header, text: strings.ToLower(k.RequestHeaders.GetHeaderName()), skip: k.RequestHeaders.GetSkipIfAbsent()}
		if a.text == "" || a.key == "" {
			return a, strict.Errorf("request_headers", "header_name and descriptor_key are required")
		}
	case *routev3.RateLimit_Action_RemoteAddress_:
		a = action{key: "remote_address", kind: remoteAddress}
	case *routev3.RateLimit_Action_Metadata:
		a, err = compileMetadata(k.Metadata)
		err = strict.At(err, "metadata")
	case *routev3.RateLimit_Action_Extension:
		a, err = compileExtension(k.Extension)
		err = strict.At(err, "extension")
	default:
		err = strict.Errorf("action_specifier", "is required")
	}
	return a, err
}

func compileMetadata(p *routev3.RateLimit_Action_MetaData) (action, error) {
	a := action{key: p.GetDescriptorKey(), kind: dynamicMetadata, text: p.GetMetadataKey().GetKey(), otherwise: p.GetDefaultValue(), skip: p.GetSkipIfAbsent()}
	if p.GetSource() == routev3.RateLimit_Action_MetaData_ROUTE_ENTRY {
		a.kind = routeMetadata
	}
	for i, s := range p.GetMetadataKey().GetPath() {
		key, ok := s.GetSegment().(*metadatav3.MetadataKey_PathSegment_Key)
		if !ok {
			return a, strict.AtIndex(strict.Errorf("", "is required"), "metadata_key.path", i)
		}
		a.path = append(a.path, key.Key)
	}
	if a.key == "" || a.text == "" || len(a.path) == 0 {
		return a, strict.Errorf("", "descriptor_key, and metadata_key with a path, are required")
	}
	return a, nil
}

func compileExtension(p *corev3.TypedExtensionConfig) (action, error) {
	m, err := strict.Unpack(p.GetTypedConfig())
	if err != nil {
		return action{}, strict.At(err, "typed_config")
	}
	e, ok := m.(*exprv3.Descriptor)
	if !ok {
		return action{}, strict.Errorf("typed_config", "type %s is not supported here", m.ProtoReflect().Descriptor().FullName())
	}
	a := action{key: e.GetDescriptorKey(), skip: e.GetSkipIfError()}
	switch e.GetText() {
	case ExprRoute:
		a.kind = routeName
	case ExprPath:
		a.kind = pathOnly
	case ExprNamespace:
		a.kind = sourceNamespace
	case ExprAccount:
		a.kind = sourceAccount
	default:
		return a, strict.Errorf("typed_config.text", "the expression %q is none of those that are supported here", e.GetText())
	}
	if a.key == "" {
		return a, strict.Errorf("typed_config.descriptor_key", "is required")
	}
	return a, nil
}

// value finds the value, or that there is none.
func (a *action) value(r *Asked) (string, bool) {
	i := r.Info
	switch a.kind {
	case literal:
		return a.text, true
	case header:
		return exchange.First(i.Head, a.text)
	case remoteAddress:
		if !i.Remote.IsValid() {
			return "", false
		}
		return i.Scratch.Keep(i.Remote.Addr().AppendTo(i.Scratch.Bytes())), true
	case dynamicMetadata:
		if v, ok := textAt(i.Metadata(a.text), a.path); ok && v != "" {
			return v, true
		}
		return a.otherwise, a.otherwise != ""
	case routeMetadata:
		if v := r.Route.find(a.text, a.path); v != "" {
			return v, true
		}
		return a.otherwise, a.otherwise != ""
	case routeName:
		return i.Route, true
	case pathOnly:
		return exchange.PathOnly(i.Head.Path), true
	case sourceNamespace, sourceAccount:
		namespace, account, ok := source(i.Head.Header.Value(SourceHeader))
		if a.kind == sourceNamespace {
			return namespace, ok
		}
		if !ok {
			return "", false
		}
		return i.Scratch.Concat(namespace, "/", account), true
	}
	return "", false
}

// source takes an identity apart: spiffe://DOMAIN/ns/NAMESPACE/sa/NAME.
func source(id string) (namespace, account string, ok bool) {
	rest, ok := strings.CutPrefix(id, "spiffe://")
	if !ok {
		return "", "", false
	}
	domain, rest, ok := strings.Cut(rest, "/ns/")
	if !ok || domain == "" || strings.IndexByte(domain, '/') >= 0 {
		return "", "", false
	}
	namespace, account, ok = strings.Cut(rest, "/sa/")
	if !ok || namespace == "" || account == "" || strings.IndexByte(namespace, '/') >= 0 || strings.IndexByte(account, '/') >= 0 {
		return "", "", false
	}
	return namespace, account, true
}

// textAt finds a string in a tree of maps.
func textAt(m map[string]any, path []string) (string, bool) {
	for i, key := range path {
		v, ok := m[key]
		if !ok {
			return "", false
		}
		if i == len(path)-1 {
			text, ok := v.(string)
			return text, ok
		}
		if m, ok = v.(map[string]any); !ok {
			return "", false
		}
	}
	return "", false
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
