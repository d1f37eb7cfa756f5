package extauthz

import (
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/match"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/mutate"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// Filter is a compiled ext_authz filter. It is immutable.
type Filter struct {
	// Cluster is where the authorizer is; Timeout bounds its answer, 0 is none.
	Cluster string
	Timeout time.Duration
	// GRPC is whether it is asked by gRPC, which takes HTTP/2, rather than by HTTP.
	GRPC bool

	authority  string // of requests to it, by gRPC
	pathPrefix string // of requests to it, by HTTP
	// allowed and disallowed are the client's headers that it is told; nil is the default.
	allowed, disallowed []match.String
	add                 *mutate.Headers
	answer              answer

	enabled       *match.Metadata // nil is always
	failOpen      bool
	failOpenSays  bool
	statusOnError int
	clearRoute    bool
	body          *bodySettings
}

// bodySettings say how much of a request's body is told. A request with more is refused, unless partial.
type bodySettings struct {
	limit        int
	partial, raw bool
}

// answer says which headers of an answer by HTTP go where.
type answer struct {
	upstream, upstreamAppend []match.String
	client                   []match.String // of a denial; nil is all
	clientOnSuccess          []match.String
}

// Compile compiles the HTTP filter.
func Compile(p *extauthzv3.ExtAuthz) (*Filter, error) {
	f := &Filter{
		failOpen: p.GetFailureModeAllow(), failOpenSays: p.GetFailureModeAllowHeaderAdd(), statusOnError: 403, clearRoute: p.GetClearRouteCache(),
	}
	if s := p.GetStatusOnError(); s != nil {
		if f.statusOnError = int(s.GetCode()); f.statusOnError < 200 || f.statusOnError > 599 {
			return nil, strict.Errorf("status_on_error.code", "%d is no status", f.statusOnError)
		}
	}
	if b := p.GetWithRequestBody(); b != nil {
		if b.GetMaxRequestBytes() == 0 || b.GetMaxRequestBytes() > maxBody {
			return nil, strict.Errorf("with_request_body.max_request_bytes", "%d is not supported: 1 to %d", b.GetMaxRequestBytes(), maxBody)
		}
		f.body = &bodySettings{limit: int(b.GetMaxRequestBytes()), partial: b.GetAllowPartialMessage(), raw: b.GetPackAsBytes()}
	}
	var err error
	if m := p.GetFilterEnabledMetadata(); m != nil {
		if f.enabled, err = match.CompileMetadata(m); err != nil {
			return nil, strict.At(err, "filter_enabled_metadata")
		}
	}
	if f.allowed, err = compileList(p.GetAllowedHeaders()); err != nil {
		return nil, strict.At(err, "allowed_headers")
	}
	if f.disallowed, err = compileList(p.GetDisallowedHeaders()); err != nil {
		return nil, strict.At(err, "disallowed_headers")
	}
	switch k := p.GetServices().(type) {
	case *extauthzv3.ExtAuthz_HttpService:
		return f, strict.At(f.http(k.HttpService), "http_service")
	case *extauthzv3.ExtAuthz_GrpcService:
		if p.GetTransportApiVersion() != corev3.ApiVersion_V3 {
			return nil, strict.Errorf("transport_api_version", "must be V3")
		}
		return f, strict.At(f.grpc(k.GrpcService), "grpc_service")
	}
	return nil, strict.Errorf("services", "is required")
}

// maxBody bounds what a request can make the proxy hold.
const maxBody = 16 << 20

func (f *Filter) http(p *extauthzv3.HttpService) error {
	f.Cluster, f.Timeout, f.pathPrefix = p.GetServerUri().GetCluster(), p.GetServerUri().GetTimeout().AsDuration(), p.GetPathPrefix()
	if f.Cluster == "" {
		return strict.Errorf("server_uri.cluster", "is required")
	}
	if f.pathPrefix != "" && f.pathPrefix[0] != '/' {
		return strict.Errorf("path_prefix", "%q does not begin with /", f.pathPrefix)
	}
	var add []*corev3.HeaderValueOption
	for _, h := range p.GetAuthorizationRequest().GetHeadersToAdd() {
		add = append(add, &corev3.HeaderValueOption{Header: h, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD})
	}
	var err error
	if f.add, err = mutate.CompileHeaders("request", add, nil); err != nil {
		return strict.At(err, "authorization_request.headers_to_add")
	}
	a := p.GetAuthorizationResponse()
	for _, list := range []struct {
		to    *[]match.String
		from  *matcherv3.ListStringMatcher
		field string
	}{
		{&f.answer.upstream, a.GetAllowedUpstreamHeaders(), "allowed_upstream_headers"},
		{&f.answer.upstreamAppend, a.GetAllowedUpstreamHeadersToAppend(), "allowed_upstream_headers_to_append"},
		{&f.answer.client, a.GetAllowedClientHeaders(), "allowed_client_headers"},
		{&f.answer.clientOnSuccess, a.GetAllowedClientHeadersOnSuccess(), "allowed_client_headers_on_success"},
	} {
		if *list.to, err = compileList(list.from); err != nil {
			return strict.At(strict.At(err, list.field), "authorization_response")
		}
	}
	return nil
}

func (f *Filter) grpc(p *corev3.GrpcService) error {
	f.GRPC = true
	f.Cluster, f.authority, f.Timeout = p.GetEnvoyGrpc().GetClusterName(), p.GetEnvoyGrpc().GetAuthority(), p.GetTimeout().AsDuration()
	if f.Cluster == "" {
		return strict.Errorf("envoy_grpc.cluster_name", "is required")
	}
	if len(p.GetInitialMetadata()) > 0 {
		return strict.Errorf("initial_metadata", "is not supported")
	}
	if f.authority == "" {
		f.authority = f.Cluster[strings.LastIndexByte(f.Cluster, '|')+1:] // the host of outbound|PORT||HOST
	}
	return nil
}

func compileList(p *matcherv3.ListStringMatcher) ([]match.String, error) {
	var out []match.String
	for i, s := range p.GetPatterns() {
		m, err := match.CompileString(s)
		if err != nil {
			return nil, strict.AtIndex(err, "patterns", i)
		}
		out = append(out, m)
	}
	return out, nil
}

func one(of []match.String, name string) bool {
	return slices.ContainsFunc(of, func(m match.String) bool { return m.Match(name) })
}

// Enabled is whether this request has to be asked about.
func (f *Filter) Enabled(i *exchange.Info) bool { return f.enabled == nil || f.enabled.Match(i) }

// Body is how much of the request's body is wanted before the authorizer is asked: 0 is nothing of it. whole is whether a request
// with more is refused.
func (f *Filter) Body(i *exchange.Info) (limit int, whole bool) {
	if f.body == nil || i.Head.Upgrade != "" || i.Head.Method == "CONNECT" {
		return 0, false
	}
	return f.body.limit, !f.body.partial
}

// tells is whether the authorizer is told a header of the client.
func (f *Filter) tells(name string) bool {
	if one(f.disallowed, name) {
		return false
	}
	if f.GRPC && len(f.allowed) == 0 {
		return true
	}
	switch name {
	case "authorization", ":method", ":path", ":authority":
		if !f.GRPC {
			return true
		}
	}
	return one(f.allowed, name)
}

// framing are headers of one connection, or that frame a message: no authorizer changes them.
func framing(name string) bool {
	switch name {
	case "", "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade":
		return true
	}
	return false
}

func lower(s string) string { return strings.ToLower(s) }
