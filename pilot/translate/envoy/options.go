package envoy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	meshapi "istio.io/api/mesh/v1alpha1"
)

// Keys of meshConfig.defaultConfig.proxyMetadata by which what is safer than in Istio is switched off (docs/differences.md). Any other
// value than the one named here keeps the safe behaviour.
const (
	// OptionEndpointIdentity is trust-domain for any identity of the mesh in the place of the endpoint's own.
	OptionEndpointIdentity = "ISTHMUS_ENDPOINT_IDENTITY"
	// OptionLocalEndpoints is allow for endpoints at loopback and link-local addresses.
	OptionLocalEndpoints = "ISTHMUS_LOCAL_ENDPOINTS"
	// OptionFoldedHeaders is unfold for HTTP/1.1 header fields of several lines.
	OptionFoldedHeaders = "ISTHMUS_FOLDED_HEADERS"
	// OptionHTTP2Paths is any for a :path that is no path of a URI.
	OptionHTTP2Paths = "ISTHMUS_HTTP2_PATHS"
	// OptionHeadersTimeout is how long gateways wait for the end of a request's head; 0s is without limit.
	OptionHeadersTimeout = "ISTHMUS_REQUEST_HEADERS_TIMEOUT"
)

// OptionProblems says which options of a mesh configuration are not understood; the safe behaviour holds.
func OptionProblems(mesh *meshapi.MeshConfig) []string {
	var out []string
	known := map[string]string{OptionEndpointIdentity: "trust-domain", OptionLocalEndpoints: "allow", OptionFoldedHeaders: "unfold", OptionHTTP2Paths: "any"}
	set := mesh.GetDefaultConfig().GetProxyMetadata()
	for _, key := range slices.Sorted(maps.Keys(set)) {
		value := set[key]
		want, choice := known[key]
		switch {
		case choice && value != want:
			out = append(out, fmt.Sprintf("defaultConfig.proxyMetadata.%s: %q is not %q, the only value that changes anything", key, value, want))
		case key == OptionHeadersTimeout:
			if d, err := time.ParseDuration(value); err != nil || d < 0 {
				out = append(out, fmt.Sprintf("defaultConfig.proxyMetadata.%s: %q is not a duration such as 10s", key, value))
			}
		case !choice && strings.HasPrefix(key, "ISTHMUS_"):
			out = append(out, fmt.Sprintf("defaultConfig.proxyMetadata.%s: there is no such option", key))
		}
	}
	return out
}

// defaultHeadersTimeout is that of gateways.
const defaultHeadersTimeout = 60 * time.Second

// options are what the mesh says in proxyMetadata.
type options map[string]string

func (m Mesh) options() options { return m.Config.GetDefaultConfig().GetProxyMetadata() }

// chosen are those of the options that are not the default, in the form in which our engine reads them; nil is none.
func (o options) chosen(keys map[string][2]string) *structpb.Struct {
	var out *structpb.Struct
	for key, want := range keys {
		if o[key] == want[1] {
			if out == nil {
				out = fields(map[string]*structpb.Value{})
			}
			out.Fields[want[0]] = text(want[1])
		}
	}
	return out
}

// cluster is what clusters say.
func (o options) cluster() *structpb.Struct {
	return o.chosen(map[string][2]string{
		OptionEndpointIdentity: {"endpoint_identity", "trust-domain"},
		OptionLocalEndpoints:   {"local_endpoints", "allow"},
	})
}

// listener is what listeners say.
func (o options) listener() *corev3.Metadata {
	return wrap(o.chosen(map[string][2]string{
		OptionFoldedHeaders: {"folded_headers", "unfold"},
		OptionHTTP2Paths:    {"http2_paths", "any"},
	}))
}

// metadata is what clusters without other metadata say.
func (o options) metadata() *corev3.Metadata { return wrap(o.cluster()) }

func wrap(own *structpb.Struct) *corev3.Metadata {
	if own == nil {
		return nil
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{MeshMetadata: own}}
}

// headersTimeout is nil for none.
func (o options) headersTimeout() *durationpb.Duration {
	limit := defaultHeadersTimeout
	if set, err := time.ParseDuration(o[OptionHeadersTimeout]); err == nil && set >= 0 {
		limit = set
	}
	if limit == 0 {
		return nil
	}
	return durationpb.New(limit)
}
