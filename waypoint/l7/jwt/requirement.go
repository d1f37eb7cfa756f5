package jwt

import (
	"slices"
	"strings"

	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// requirement is what a request must have.
type requirement interface {
	check(f *Filter, i *exchange.Info) status
}

func (f *Filter) order() {
	for _, p := range f.providers {
		f.ordered = append(f.ordered, p)
	}
	slices.SortFunc(f.ordered, func(a, b *provider) int { return strings.Compare(a.name, b.name) })
}

// oneOf is a token of one provider.
type oneOf struct {
	provider  *provider
	audiences []string // instead of the provider's; nil is the provider's
}

func (o *oneOf) check(_ *Filter, i *exchange.Info) status {
	return o.provider.authenticate(i, o.audiences)
}

// anyOf takes what any of them takes. allow_missing and allow_missing_or_failed among them are flags.
type anyOf struct {
	list                        []requirement
	allowMissing, allowAnything bool
}

func (a *anyOf) check(f *Filter, i *exchange.Info) status {
	final := statusMissed
	for _, r := range a.list {
		s := r.check(f, i)
		if s == statusOK {
			return statusOK
		}
		// A real failure says more than that there is no token for a provider, or one of another issuer.
		if s != statusMissed && s != statusIssuer || final == statusMissed {
			final = s
		}
	}
	if a.allowAnything || a.allowMissing && final == statusMissed {
		return statusOK
	}
	return final
}

type allOf struct{ list []requirement }

func (a *allOf) check(f *Filter, i *exchange.Info) status {
	for _, r := range a.list {
		if s := r.check(f, i); s != statusOK {
			return s
		}
	}
	return statusOK
}

// lenient is a requirement by itself: allow_missing, allow_missing_or_failed. Tokens of any provider are looked at.
type lenient struct{ failed bool }

func (l *lenient) check(f *Filter, i *exchange.Info) status {
	final := statusOK
	for n, p := range f.ordered {
		// Of several providers with one issuer the first one is asked.
		if slices.ContainsFunc(f.ordered[:n], func(o *provider) bool { return o.issuer == p.issuer }) {
			continue
		}
		s := p.authenticate(i, nil)
		if s != statusOK && s != statusMissed && s != statusIssuer {
			final = s
		}
	}
	if l.failed {
		return statusOK
	}
	return final
}

func (f *Filter) requirement(p *jwtv3.JwtRequirement) (requirement, error) {
	switch k := p.GetRequiresType().(type) {
	case nil:
		return nil, nil
	case *jwtv3.JwtRequirement_ProviderName:
		return f.named1(k.ProviderName, nil, "provider_name")
	case *jwtv3.JwtRequirement_ProviderAndAudiences:
		return f.named1(k.ProviderAndAudiences.GetProviderName(), k.ProviderAndAudiences.GetAudiences(), "provider_and_audiences.provider_name")
	case *jwtv3.JwtRequirement_AllowMissing:
		return &lenient{}, nil
	case *jwtv3.JwtRequirement_AllowMissingOrFailed:
		return &lenient{failed: true}, nil
	case *jwtv3.JwtRequirement_RequiresAll:
		list, err := f.requirements(k.RequiresAll.GetRequirements())
		return &allOf{list}, strict.At(err, "requires_all")
	case *jwtv3.JwtRequirement_RequiresAny:
		list, err := f.requirements(k.RequiresAny.GetRequirements())
		if err != nil {
			return nil, strict.At(err, "requires_any")
		}
		a := &anyOf{}
		for _, r := range list {
			if l, ok := r.(*lenient); ok {
				a.allowAnything, a.allowMissing = a.allowAnything || l.failed, a.allowMissing || !l.failed
			} else {
				a.list = append(a.list, r)
			}
		}
		return a, nil
	}
	return nil, strict.Errorf("requires_type", "is not supported")
}

func (f *Filter) named1(name string, audiences []string, field string) (requirement, error) {
	p := f.providers[name]
	if p == nil {
		return nil, strict.Errorf(field, "%q is not in providers", name)
	}
	return &oneOf{provider: p, audiences: audiences}, nil
}

func (f *Filter) requirements(ps []*jwtv3.JwtRequirement) ([]requirement, error) {
	var out []requirement
	for i, p := range ps {
		r, err := f.requirement(p)
		if err == nil && r == nil {
			err = strict.Errorf("requires_type", "is required")
		}
		if err != nil {
			return nil, strict.AtIndex(err, "requirements", i)
		}
		out = append(out, r)
	}
	return out, nil
}
