package jwt

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"github.com/go-jose/go-jose/v4"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/match"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// provider is a compiled JwtProvider.
type provider struct {
	name, issuer string
	audiences    []string
	subjects     *match.String
	keys         []jose.JSONWebKey
	skew         time.Duration
	needExpiry   bool
	maxLifetime  time.Duration // 0 is any

	headers []jwtHeader
	params  []string
	cookies []string

	forward        bool
	payloadHeader  string
	padded         bool
	claims         []claimHeader
	payloadKey     string // of the dynamic metadata
	headerKey      string
	spaceDelimited []string
	clearRoute     bool
}

type jwtHeader struct{ name, prefix string }

type claimHeader struct {
	header string
	path   []string
}

func compileProvider(name string, p *jwtv3.JwtProvider) (*provider, error) {
	c := &provider{
		name: name, issuer: p.GetIssuer(), skew: time.Duration(p.GetClockSkewSeconds()) * time.Second,
		needExpiry: p.GetRequireExpiration(), maxLifetime: p.GetMaxLifetime().AsDuration(), forward: p.GetForward(),
		payloadHeader: strings.ToLower(p.GetForwardPayloadHeader()), padded: p.GetPadForwardPayloadHeader(),
		payloadKey: p.GetPayloadInMetadata(), headerKey: p.GetHeaderInMetadata(), params: p.GetFromParams(), cookies: p.GetFromCookies(),
		spaceDelimited: p.GetNormalizePayloadInMetadata().GetSpaceDelimitedClaims(),
	}
	c.clearRoute = p.GetClearRouteCache()
	if c.skew == 0 {
		c.skew = time.Minute
	}
	for _, a := range p.GetAudiences() {
		c.audiences = append(c.audiences, audience(a))
	}
	if s := p.GetSubjects(); s != nil {
		m, err := match.CompileString(s)
		if err != nil {
			return nil, strict.At(err, "subjects")
		}
		c.subjects = &m
	}
	for _, h := range p.GetFromHeaders() {
		c.headers = append(c.headers, jwtHeader{strings.ToLower(h.GetName()), h.GetValuePrefix()})
	}
	if len(c.headers)+len(c.params)+len(c.cookies) == 0 {
		c.headers = []jwtHeader{{"authorization", "Bearer "}}
		c.params = []string{"access_token"}
	}
	for _, cl := range p.GetClaimToHeaders() {
		c.claims = append(c.claims, claimHeader{strings.ToLower(cl.GetHeaderName()), strings.Split(cl.GetClaimName(), ".")})
	}
	local := p.GetLocalJwks()
	if local == nil || local.GetFilename() != "" {
		return nil, strict.Errorf("local_jwks", "is required, inline")
	}
	text := []byte(local.GetInlineString())
	if b := local.GetInlineBytes(); len(b) > 0 {
		text = b
	}
	c.keys = parseKeys(text)
	return c, nil
}

// parseKeys reads a JWKS. Keys that are no good are left out; without any, every token is refused.
func parseKeys(text []byte) []jose.JSONWebKey {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(text, &set) != nil {
		return nil
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(raw) == nil && (k.Use == "" || k.Use == "sig") {
			keys = append(keys, k)
		}
	}
	return keys
}

// audience is compared without scheme and trailing slash, as Envoy does.
func audience(a string) string {
	a = strings.TrimPrefix(strings.TrimPrefix(a, "https://"), "http://")
	return strings.TrimSuffix(a, "/")
}

// found is a token and where it was.
type found struct {
	text, header, param, cookie string
}

// extract returns the tokens that the request carries for the provider, in Envoy's order: headers, parameters, cookies.
func (p *provider) extract(h *httpmsg.Head) []found {
	var out []found
	for _, where := range p.headers {
		v, ok := exchange.Header(h, where.name)
		if !ok {
			continue
		}
		if where.prefix == "" {
			out = append(out, found{text: strings.TrimSpace(v), header: where.name})
			continue
		}
		if i := strings.Index(v, where.prefix); i >= 0 {
			out = append(out, found{text: fromToken(v[i+len(where.prefix):]), header: where.name})
		}
	}
	for _, name := range p.params {
		if v, ok := match.QueryParameter(h.Path, name); ok {
			out = append(out, found{text: v, param: name})
		}
	}
	for _, name := range p.cookies {
		for _, f := range h.Header.Fields() {
			if f.Key != "cookie" {
				continue
			}
			for pair := range strings.SplitSeq(f.Value, ";") {
				if k, v, _ := strings.Cut(strings.TrimSpace(pair), "="); k == name && v != "" {
					out = append(out, found{text: v, cookie: name})
				}
			}
		}
	}
	return out
}

// fromToken is what follows from the first character that a JWT can have.
func fromToken(s string) string {
	i := strings.IndexFunc(s, func(c rune) bool {
		return c == '.' || c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
	})
	if i < 0 {
		return s
	}
	return strings.TrimRight(s[i:], " ")
}

// authenticate looks for tokens of the provider. Every token that is there must be good.
func (p *provider) authenticate(i *exchange.Info, audiences []string) status {
	tokens := p.extract(i.Head)
	if len(tokens) == 0 {
		return statusMissed
	}
	for _, f := range tokens {
		t, s := parse(f.text)
		if s == statusOK {
			s = p.accept(t, i.Now, audiences)
		}
		if s != statusOK {
			return s
		}
		p.apply(i, t, f)
	}
	return statusOK
}

// accept checks a token: issuer, subject, times, audience, signature.
func (p *provider) accept(t *token, now time.Time, audiences []string) status {
	if p.issuer != "" && t.issuer != p.issuer {
		return statusIssuer
	}
	if p.subjects != nil && !p.subjects.Match(t.subject) {
		return statusSubject
	}
	at, skew := now.Unix(), int64(p.skew/time.Second)
	switch {
	case t.before > 0 && at+skew < t.before:
		return statusNotYet
	case t.hasUntil && t.until > 0 && at > t.until+skew:
		return statusExpired
	case p.needExpiry && !t.hasUntil:
		return statusNoExpiry
	case p.maxLifetime > 0 && (!t.hasUntil || time.Duration(t.until-max(t.issued, 0))*time.Second > p.maxLifetime):
		return statusLifetime
	}
	allowed := p.audiences
	if audiences != nil {
		allowed = audiences
	}
	if len(allowed) > 0 && !slices.ContainsFunc(t.audiences, func(a string) bool { return containsAudience(allowed, a) }) {
		return statusAudience
	}
	if len(p.keys) == 0 {
		return statusNoKeys
	}
	return verify(p.keys, t)
}

func containsAudience(allowed []string, a string) bool {
	a = audience(a)
	for _, w := range allowed {
		if audience(w) == a {
			return true
		}
	}
	return false
}

// sanitize removes what the provider would set: a client must not.
func (p *provider) sanitize(h *httpmsg.Header) {
	if p.payloadHeader != "" {
		h.Del(p.payloadHeader)
	}
	for n := range p.claims {
		h.Del(p.claims[n].header)
	}
}

// apply passes on what a good token says.
func (p *provider) apply(i *exchange.Info, t *token, f found) {
	h := &i.Head.Header
	if p.payloadHeader != "" {
		v := t.payloadText
		if pad := len(v) % 4; p.padded && pad != 0 {
			v += "===="[pad:]
		}
		h.Add(p.payloadHeader, v)
	}
	for n := range p.claims {
		if v, ok := claimText(t.payload, p.claims[n].path); ok {
			h.Add(p.claims[n].header, v)
		}
	}
	if !p.forward {
		f.remove(i.Head)
	}
	i.ClearRoute = i.ClearRoute || p.clearRoute && (p.payloadKey != "" || len(p.claims) > 0)
	if p.payloadKey != "" {
		i.SetMetadata(metadataNamespace, p.payloadKey, p.normalized(t.payload))
	}
	if p.headerKey != "" {
		i.SetMetadata(metadataNamespace, p.headerKey, t.header)
	}
}

// normalized splits claims that are lists delimited by spaces.
func (p *provider) normalized(payload map[string]any) map[string]any {
	for _, key := range p.spaceDelimited {
		if s, ok := payload[key].(string); ok {
			var list []any
			for _, w := range strings.Fields(s) {
				list = append(list, w)
			}
			payload[key] = list
		}
	}
	return payload
}

// claimText is a claim as a header value: text and numbers as they are, lists and objects as base64url of their JSON.
func claimText(payload map[string]any, path []string) (string, bool) {
	var v any = payload
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return "", false
		}
		if v, ok = m[key]; !ok {
			return "", false
		}
	}
	switch v := v.(type) {
	case string:
		return v, v != ""
	case bool:
		return strconv.FormatBool(v), true
	case float64:
		if v == float64(int64(v)) {
			return strconv.FormatInt(int64(v), 10), true
		}
		return strconv.FormatFloat(v, 'f', 6, 64), true
	case []any, map[string]any:
		raw, err := json.Marshal(v)
		if err != nil {
			return "", false
		}
		return base64.StdEncoding.EncodeToString(raw), true
	}
	return "", false
}

// remove takes the token out of the request.
func (f *found) remove(h *httpmsg.Head) {
	switch {
	case f.header != "":
		h.Header.Del(f.header)
	case f.param != "":
		h.Path = removeParam(h.Path, f.param)
	}
}

func removeParam(path, name string) string {
	base, query, ok := strings.Cut(path, "?")
	if !ok {
		return path
	}
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		if k, _, _ := strings.Cut(pair, "="); k != name {
			kept = append(kept, pair)
		}
	}
	if len(kept) == 0 {
		return base
	}
	return base + "?" + strings.Join(kept, "&")
}
