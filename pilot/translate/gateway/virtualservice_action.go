package gateway

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	networkingapi "istio.io/api/networking/v1alpha3"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// headers translates header operations. Setting the authority is a rewrite, and is returned as such.
func (t *translation) headers(h *httpPiece, path *field.Path, in *networkingapi.Headers) (request, response route.HeaderOps, authority string) {
	if in == nil {
		return
	}
	request, authority = t.headerOps(h, path.Child("request"), in.Request, true)
	response, _ = t.headerOps(h, path.Child("response"), in.Response, false)
	return
}

func (t *translation) headerOps(h *httpPiece, path *field.Path, in *networkingapi.Headers_HeaderOperations, request bool) (out route.HeaderOps, authority string) {
	if in == nil {
		return
	}
	read := func(path *field.Path, all map[string]string) []route.Header {
		var headers []route.Header
		for _, name := range slices.Sorted(maps.Keys(all)) {
			value := all[name]
			switch {
			case !t.check(h.reporter, path.Key(name), route.CheckValue(value)):
			case route.IsHost(name) && request:
				authority = value
			case strings.HasPrefix(name, ":") || route.IsHost(name):
				t.problem(h.reporter, path.Key(name), "this header cannot be changed")
			case t.check(h.reporter, path.Key(name), route.CheckName(name)):
				headers = append(headers, route.Header{Name: name, Value: route.Format(value)})
			}
		}
		return headers
	}
	out.Set = read(path.Child("set"), in.Set)
	out.Add = read(path.Child("add"), in.Add)
	for i, name := range in.Remove {
		if strings.HasPrefix(name, ":") || route.IsHost(name) {
			t.problem(h.reporter, path.Child("remove").Index(i), "%s cannot be removed", name)
		} else if t.check(h.reporter, path.Child("remove").Index(i), route.CheckName(name)) {
			out.Remove = append(out.Remove, name)
		}
	}
	return
}

// retry translates a retry policy; nil for no retries. Nothing said is the mesh's default.
func (t *translation) retry(origin route.Origin, path *field.Path, in *networkingapi.HTTPRetry) *route.Retry {
	if in == nil {
		if in = t.mesh.DefaultRetry; in == nil {
			return route.DefaultRetry()
		}
	}
	if in.Attempts < 0 {
		t.problem(origin, path.Child("attempts"), "the number is negative, and counts as 0")
	}
	if in.Attempts <= 0 {
		return nil
	}
	out := route.DefaultRetry()
	out.Attempts = uint32(in.Attempts)
	if in.RetryOn != "" {
		out.On, out.Codes = t.retryOn(origin, path.Child("retryOn"), in.RetryOn)
	}
	out.PerTryTimeout = t.positive(origin, path.Child("perTryTimeout"), in.PerTryTimeout)
	out.Backoff = t.positive(origin, path.Child("backoff"), in.Backoff)
	out.OtherLocalities = in.RetryRemoteLocalities.GetValue()
	if in.RetryIgnorePreviousHosts != nil {
		out.OtherHosts = in.RetryIgnorePreviousHosts.Value
	}
	return out
}

// positive reads a duration; 0 when there is none, or none that makes sense.
func (t *translation) positive(origin route.Origin, path *field.Path, in *durationpb.Duration) time.Duration {
	if in == nil || !t.check(origin, path, in.CheckValid()) {
		return 0
	}
	d := in.AsDuration()
	if d < 0 {
		t.problem(origin, path, "the duration is negative, and counts as not set")
		return 0
	}
	return d
}

// retryOn reads conditions and status codes, in one list as Istio has them.
func (t *translation) retryOn(origin route.Origin, path *field.Path, text string) (on []string, codes []uint32) {
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		if code, err := strconv.ParseUint(word, 10, 32); err == nil {
			if code < 100 || code > 599 {
				t.problem(origin, path, "%d is no status code", code)
				continue
			}
			codes = append(codes, uint32(code))
			continue
		}
		if word == "" {
			continue
		}
		if !slices.Contains(retryConditions(), word) {
			t.problem(origin, path, "%q is no condition for a retry", word)
			continue
		}
		on = append(on, word)
	}
	return on, codes
}

func retryConditions() []string {
	return []string{
		"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited", "retriable-4xx",
		"refused-stream", "retriable-status-codes", "retriable-headers", "http3-post-connect-failure",
		"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
	}
}

func (t *translation) redirect(h *httpPiece, in *networkingapi.HTTPRedirect) (*route.Redirect, bool) {
	path := h.path.Child("redirect")
	out := &route.Redirect{Host: in.Authority, Path: in.Uri, Prefix: in.PrefixRewrite, Scheme: in.Scheme, Code: in.RedirectCode}
	ok := true
	for name, value := range map[string]string{"uri": in.Uri, "authority": in.Authority, "prefixRewrite": in.PrefixRewrite} {
		ok = t.check(h.reporter, path.Child(name), route.CheckValue(value)) && ok
	}
	if in.Uri != "" && in.PrefixRewrite != "" {
		t.problem(h.reporter, path, "only one of uri and prefixRewrite may be set")
		ok = false
	}
	if in.Scheme != "" && in.Scheme != "http" && in.Scheme != "https" {
		t.problem(h.reporter, path.Child("scheme"), "%q is neither http nor https", in.Scheme)
		ok = false
	}
	switch in.RedirectCode {
	case 0:
		out.Code = 301
	case 301, 302, 303, 307, 308:
	default:
		t.problem(h.reporter, path.Child("redirectCode"), "%d is no code of a redirect", in.RedirectCode)
		ok = false
	}
	switch p := in.RedirectPort.(type) {
	case *networkingapi.HTTPRedirect_Port:
		if p.Port > 65535 {
			t.problem(h.reporter, path.Child("port"), "%d is no port", p.Port)
			ok = false
		}
		out.Port = p.Port
	case *networkingapi.HTTPRedirect_DerivePort:
		// The request's port is the one that the proxy listens on for it.
		if p.DerivePort == networkingapi.HTTPRedirect_FROM_REQUEST_PORT {
			out.Port = t.port
		}
	}
	out.Port = t.shownPort(out.Scheme, out.Port)
	return out, ok
}

// shownPort leaves out the port that a scheme has anyway.
func (t *translation) shownPort(scheme string, port uint32) uint32 {
	if scheme == "" {
		scheme = "http"
		if t.tls {
			scheme = "https"
		}
	}
	if scheme == "http" && port == 80 || scheme == "https" && port == 443 {
		return 0
	}
	return port
}

func (t *translation) fault(h *httpPiece) *route.Fault {
	in, path := h.in.Fault, h.path.Child("fault")
	if in == nil {
		return nil
	}
	out := &route.Fault{}
	if d := in.Delay; d != nil {
		t.delay(h, path.Child("delay"), d, out)
	}
	if a := in.Abort; a != nil {
		t.abort(h, path.Child("abort"), a, out)
	}
	if out.Delay == 0 && out.Status == 0 && out.GRPC == nil {
		return nil
	}
	return out
}

func (t *translation) delay(h *httpPiece, path *field.Path, d *networkingapi.HTTPFaultInjection_Delay, out *route.Fault) {
	otherwise := route.Share(min(max(d.GetPercent(), 0), 100)) * 10_000 //nolint:staticcheck // still in the field's manifests
	share := t.share(h, path.Child("percentage"), d.Percentage, otherwise)
	fixed, ok := d.HttpDelayType.(*networkingapi.HTTPFaultInjection_Delay_FixedDelay)
	if !ok {
		t.problem(h.reporter, path, "only fixedDelay is supported")
		return
	}
	if length := t.positive(h.reporter, path.Child("fixedDelay"), fixed.FixedDelay); length > 0 && share > 0 {
		out.Delay, out.DelayShare = length, share
	}
}

func (t *translation) abort(h *httpPiece, path *field.Path, a *networkingapi.HTTPFaultInjection_Abort, out *route.Fault) {
	// The API: nothing is aborted when no percentage is given.
	share := t.share(h, path.Child("percentage"), a.Percentage, 0)
	if share == 0 {
		return
	}
	switch e := a.ErrorType.(type) {
	case *networkingapi.HTTPFaultInjection_Abort_HttpStatus:
		if e.HttpStatus < 200 || e.HttpStatus > 599 {
			t.problem(h.reporter, path.Child("httpStatus"), "%d is no status that can be answered", e.HttpStatus)
			return
		}
		out.Status, out.AbortShare = uint32(e.HttpStatus), share
	case *networkingapi.HTTPFaultInjection_Abort_GrpcStatus:
		code, ok := grpcStatus(e.GrpcStatus)
		if !ok {
			t.problem(h.reporter, path.Child("grpcStatus"), "%q is no status of gRPC", e.GrpcStatus)
			return
		}
		out.GRPC, out.AbortShare = &code, share
	default:
		t.problem(h.reporter, path, "only httpStatus and grpcStatus are supported")
	}
}

// grpcStatus reads a status by its name or number.
func grpcStatus(text string) (uint32, bool) {
	names := []string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
		"UNAUTHENTICATED",
	}
	if i := slices.Index(names, strings.ToUpper(text)); i >= 0 {
		return uint32(i), true
	}
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err == nil && n < uint64(len(names))
}

func (t *translation) cors(h *httpPiece) *route.CORS {
	in, path := h.in.CorsPolicy, h.path.Child("corsPolicy")
	if in == nil {
		return nil
	}
	out := &route.CORS{
		AllowMethods:     t.words(h, path.Child("allowMethods"), in.AllowMethods),
		AllowHeaders:     t.words(h, path.Child("allowHeaders"), in.AllowHeaders),
		ExposeHeaders:    t.words(h, path.Child("exposeHeaders"), in.ExposeHeaders),
		ForwardUnmatched: in.UnmatchedPreflights != networkingapi.CorsPolicy_IGNORE,
	}
	for i, o := range in.AllowOrigins {
		m := stringMatch(o)
		if t.check(h.reporter, path.Child("allowOrigins").Index(i), m.Check()) {
			out.Origins = append(out.Origins, m)
		}
	}
	if len(in.AllowOrigins) == 0 {
		for _, o := range in.GetAllowOrigin() { //nolint:staticcheck // still in the field's manifests
			out.Origins = append(out.Origins, route.StringMatch{Kind: route.Exact, Value: o})
		}
	}
	if in.MaxAge != nil {
		age := t.positive(h.reporter, path.Child("maxAge"), in.MaxAge)
		out.MaxAge = &age
	}
	if in.AllowCredentials != nil {
		out.AllowCredentials = &in.AllowCredentials.Value
	}
	return out
}

// words keeps those that may stand in a header.
func (t *translation) words(h *httpPiece, path *field.Path, in []string) []string {
	var out []string
	for i, w := range in {
		if t.check(h.reporter, path.Index(i), route.CheckValue(w)) {
			out = append(out, w)
		}
	}
	return out
}
