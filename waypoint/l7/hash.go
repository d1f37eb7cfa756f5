package l7

import (
	"math/bits"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/match"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

type hashKind uint8

const (
	hashHeader hashKind = iota
	hashCookie
	hashSourceIP
	hashQuery
)

// hashPolicy is one thing that a request is hashed by.
type hashPolicy struct {
	kind       hashKind
	name       string
	regex      *regexp.Regexp
	replace    string
	terminal   bool
	generate   bool // a cookie that is not there is made
	ttl        time.Duration
	path       string
	attributes string
}

func compileHash(ps []*routev3.RouteAction_HashPolicy) ([]hashPolicy, error) {
	var out []hashPolicy
	for i, p := range ps {
		h, err := compileHashPolicy(p)
		if err != nil {
			return nil, strict.AtIndex(err, "hash_policy", i)
		}
		out = append(out, h)
	}
	return out, nil
}

func compileHashPolicy(p *routev3.RouteAction_HashPolicy) (hashPolicy, error) {
	h := hashPolicy{terminal: p.GetTerminal()}
	switch k := p.GetPolicySpecifier().(type) {
	case *routev3.RouteAction_HashPolicy_Header_:
		h.kind, h.name = hashHeader, strings.ToLower(k.Header.GetHeaderName())
		if rw := k.Header.GetRegexRewrite(); rw != nil {
			var err error
			if h.regex, h.replace, err = compileSubstitute(rw); err != nil {
				return h, strict.At(err, "header.regex_rewrite")
			}
		}
	case *routev3.RouteAction_HashPolicy_Cookie_:
		h.kind, h.name = hashCookie, k.Cookie.GetName()
		h.path = k.Cookie.GetPath()
		if t := k.Cookie.GetTtl(); t != nil {
			h.generate, h.ttl = true, t.AsDuration()
		}
		for _, a := range k.Cookie.GetAttributes() {
			h.attributes += "; " + a.GetName()
			if a.GetValue() != "" {
				h.attributes += "=" + a.GetValue()
			}
		}
	case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
		if !k.ConnectionProperties.GetSourceIp() {
			return h, strict.Errorf("connection_properties.source_ip", "is required")
		}
		h.kind = hashSourceIP
	case *routev3.RouteAction_HashPolicy_QueryParameter_:
		h.kind, h.name = hashQuery, k.QueryParameter.GetName()
	default:
		return h, strict.Errorf("policy_specifier", "is required")
	}
	return h, nil
}

// hash combines what the policies find: rotated left by one and xored, as Envoy does.
func (d *Decision) hash(r *Request, ps []hashPolicy, rnd Rand) {
	for i := range ps {
		v, ok := ps[i].value(d, r, rnd)
		if ok {
			if d.HashOK {
				v ^= bits.RotateLeft64(d.Hash, 1)
			}
			d.Hash, d.HashOK = v, true
		}
		if ps[i].terminal && d.HashOK {
			return
		}
	}
}

func (h *hashPolicy) value(d *Decision, r *Request, rnd Rand) (uint64, bool) {
	switch h.kind {
	case hashHeader:
		v, ok := exchange.Header(r.Head, h.name)
		if !ok {
			return 0, false
		}
		if h.regex != nil {
			v = h.regex.ReplaceAllString(v, h.replace)
		}
		return xxhash.Sum64String(v), true
	case hashCookie:
		v := cookie(r, h.name)
		if v == "" && h.generate {
			v = r.Scratch.Keep(strconv.AppendUint(r.Scratch.Bytes(), rnd.Uint64(), 16))
			d.resp.cookie, d.resp.cookieValue = h, v
		}
		if v == "" {
			return 0, false
		}
		return xxhash.Sum64String(v), true
	case hashSourceIP:
		if !r.Remote.IsValid() {
			return 0, false
		}
		b := r.Remote.Addr().Unmap().AppendTo(r.Scratch.Bytes())
		return xxhash.Sum64(b), true
	}
	v, ok := match.QueryParameter(r.Head.Path, h.name)
	if !ok {
		return 0, false
	}
	return xxhash.Sum64String(v), true
}

// cookie returns a cookie of the request.
func cookie(r *Request, name string) string {
	for _, f := range r.Head.Header.Fields() {
		if f.Key != "cookie" {
			continue
		}
		for rest := f.Value; rest != ""; {
			var pair string
			pair, rest, _ = strings.Cut(rest, ";")
			k, v, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if k == name {
				return strings.Trim(v, `"`)
			}
		}
	}
	return ""
}

// setCookie is the set-cookie that makes the client come back to the same host.
func (h *hashPolicy) setCookie(r *Request, value string) string {
	b := append(r.Scratch.Bytes(), h.name...)
	b = append(b, '=', '"')
	b = append(b, value...)
	b = append(b, '"')
	if h.ttl > 0 {
		b = append(b, "; Max-Age="...)
		b = strconv.AppendInt(b, int64(h.ttl/time.Second), 10)
	}
	if h.path != "" {
		b = append(b, "; Path="...)
		b = append(b, h.path...)
	}
	b = append(b, h.attributes...)
	b = append(b, "; HttpOnly"...)
	return r.Scratch.Keep(b)
}
