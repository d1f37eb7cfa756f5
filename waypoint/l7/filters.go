package l7

import (
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	rbacfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/extauthz"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/jwt"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/rbac"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// filter is an HTTP filter before the router: one of its configurations is set.
type filter struct {
	name     string
	disabled bool // unless a route says otherwise
	rbac     *rbac.Filter
	jwt      *jwt.Filter
	cors     bool
	fault    *fault
	state    []stateEntry
	external *extauthz.Filter
	mutation *mutation
	limit    *limiter
	session  *session
}

// override is what a route, a virtual host or a weighted cluster says of a filter.
type override struct {
	name              string
	disabled, enabled bool
	rbac              *rbac.Filter
	rbacSet           bool
	jwt               *jwt.PerRoute
	cors              *corsPolicy
	fault             *fault
	limit             *limiter
	session           *session
}

// compileFilters compiles http_filters; the router must be the last one.
func (h *HTTPManager) compileFilters(ps []*hcmv3.HttpFilter) error {
	routed := false
	for i, p := range ps {
		if routed {
			return strict.AtIndex(strict.Errorf("", "comes after the router"), "http_filters", i)
		}
		if r := (&routerv3.Router{}); p.GetTypedConfig().MessageIs(r) {
			if err := p.GetTypedConfig().UnmarshalTo(r); err != nil {
				return strict.AtIndex(err, "http_filters", i)
			}
			h.opts.suppressEnvoy, h.opts.respectExpected = r.GetSuppressEnvoyHeaders(), r.GetRespectExpectedRqTimeout()
			routed = true
			continue
		}
		f, ok, err := compileFilter(p.GetTypedConfig())
		if err != nil {
			return strict.AtIndex(strict.At(err, "typed_config"), "http_filters", i)
		}
		if f.name, f.disabled = p.GetName(), p.GetDisabled(); ok {
			h.filters = append(h.filters, f)
		}
	}
	if !routed {
		return strict.Errorf("http_filters", "must end with the router")
	}
	return nil
}

// compileFilter compiles one filter; ok is false for one that does nothing to requests.
func compileFilter(a *anypb.Any) (f filter, ok bool, err error) {
	m, err := strict.Unpack(a)
	if err != nil {
		return f, false, err
	}
	switch m := m.(type) {
	case *rbacfilterv3.RBAC:
		f.rbac, err = rbac.Compile(m)
	case *jwtv3.JwtAuthentication:
		f.jwt, err = jwt.Compile(m)
	case *corsv3.Cors:
		f.cors = true
	case *faultv3.HTTPFault:
		f.fault, err = compileFault(m)
	case *extauthzv3.ExtAuthz:
		f.external, err = extauthz.Compile(m)
	case *mutationv3.HeaderMutation:
		f.mutation, err = compileMutation(m)
	case *setstatev3.Config:
		f.state, err = compileState(m)
	case *localv3.LocalRateLimit:
		f.limit, err = compileLimiter(m)
	case *sessionv3.StatefulSession:
		f.session, err = compileSession(m)
	case *grpcstatsv3.FilterConfig:
		return f, false, nil // counts only
	default:
		if watches, err := observes(m); watches || err != nil {
			return f, false, err
		}
		err = strict.Errorf("", "type %s is not supported here", m.ProtoReflect().Descriptor().FullName())
	}
	return f, err == nil, err
}

// compileOverrides compiles a typed_per_filter_config.
func compileOverrides(ps map[string]*anypb.Any) ([]override, error) {
	var out []override
	for name, a := range ps {
		o := override{name: name}
		if err := o.compile(a); err != nil {
			return nil, strict.AtKey(err, "typed_per_filter_config", name)
		}
		out = append(out, o)
	}
	return out, nil
}

func (o *override) compile(a *anypb.Any) error {
	m, err := strict.Unpack(a)
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *routev3.FilterConfig:
		if m.GetDisabled() {
			o.disabled = true
			return nil
		}
		o.enabled = true
		if m.GetConfig() == nil {
			return nil
		}
		return strict.At(o.compile(m.GetConfig()), "config")
	case *rbacfilterv3.RBACPerRoute:
		o.rbacSet = true
		if m.GetRbac() != nil {
			o.rbac, err = rbac.Compile(m.GetRbac())
		}
		return strict.At(err, "rbac")
	case *jwtv3.PerRouteConfig:
		o.jwt = &jwt.PerRoute{Disabled: m.GetDisabled(), Requirement: m.GetRequirementName()}
	case *extauthzv3.ExtAuthzPerRoute:
		o.disabled = m.GetDisabled()
	case *corsv3.CorsPolicy:
		o.cors, err = compileCORS(m)
	case *faultv3.HTTPFault:
		o.fault, err = compileFault(m)
	case *localv3.LocalRateLimit:
		o.limit, err = compileLimiter(m)
	case *sessionv3.StatefulSessionPerRoute:
		if o.disabled = m.GetDisabled(); !o.disabled {
			o.session, err = compileSession(m.GetStatefulSession())
			err = strict.At(err, "stateful_session")
		}
	default:
		return strict.Errorf("", "type %s is not supported here", m.ProtoReflect().Descriptor().FullName())
	}
	return err
}

// mergeOverrides puts those of a more specific level before those of a less specific one. Of each filter the most specific one
// holds; CORS policies fill each other's gaps.
func mergeOverrides(specific, general []override) []override {
	if len(general) == 0 {
		return specific
	}
	out := append([]override(nil), specific...)
next:
	for _, g := range general {
		for i := range out {
			if out[i].name != g.name {
				continue
			}
			if out[i].cors != nil && g.cors != nil {
				out[i].cors = out[i].cors.merge(g.cors)
			}
			continue next
		}
		out = append(out, g)
	}
	return out
}

func findOverride(os []override, name string) *override {
	for i := range os {
		if os[i].name == name {
			return &os[i]
		}
	}
	return nil
}
