package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"github.com/go-jose/go-jose/v4"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

const now = 1_800_000_000

// issuer signs tokens for the tests.
type issuer struct {
	t    *testing.T
	rsa  *rsa.PrivateKey
	ec   *ecdsa.PrivateKey
	ed   ed25519.PrivateKey
	alt  *rsa.PrivateKey
	jwks string
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{t: t, rsa: must(rsa.GenerateKey(rand.Reader, 2048)), alt: must(rsa.GenerateKey(rand.Reader, 2048)), ec: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	pub, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.ed = ed
	i.jwks = string(must(json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: &i.rsa.PublicKey, KeyID: "r", Algorithm: "RS256", Use: "sig"}, {Key: &i.ec.PublicKey, KeyID: "e"}, {Key: pub, KeyID: "d"}, {Key: &i.alt.PublicKey, KeyID: "p"},
	}})))
	return i
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (i *issuer) sign(alg jose.SignatureAlgorithm, key any, kid, claims string) string {
	o := &jose.SignerOptions{}
	if kid != "" {
		o = o.WithHeader("kid", kid)
	}
	s := must(jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o))
	return must(must(s.Sign([]byte(claims))).CompactSerialize())
}

func (i *issuer) filter(provider, rules string) *Filter {
	i.t.Helper()
	p := &jwtv3.JwtAuthentication{}
	text := `{"bypass_cors_preflight": true, "providers": {"p": {"issuer": "https://i", "local_jwks": {"inline_string": ` + string(must(json.Marshal(i.jwks))) + `}` + provider + `}}, "rules": [` + rules + `]}`
	if err := protojson.Unmarshal([]byte(text), p); err != nil {
		i.t.Fatal(err)
	}
	f, err := Compile(p)
	if err != nil {
		i.t.Fatal(err)
	}
	return f
}

func info(path string, headers ...string) *exchange.Info {
	h := &httpmsg.Head{}
	h.Reset()
	h.Version, h.Method, h.Scheme, h.Authority, h.Path = httpmsg.HTTP11, "GET", "http", "x", path
	for n := 0; n+1 < len(headers); n += 2 {
		h.Header.Add(headers[n], headers[n+1])
	}
	i := &exchange.Info{}
	i.Begin(h, &exchange.Conn{})
	i.Now = time.Unix(now, 0)
	return i
}

const required = `{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}`

// Each token was refused so by Envoy 1.40; the words are the body of its answer.
func TestTokens(t *testing.T) {
	is := newIssuer(t)
	f := is.filter(`, "audiences": ["a1", "https://a2/"], "forward": true`, required)
	ok := fmt.Sprintf(`{"iss":"https://i","exp":%d,"aud":["a1"]}`, now+3600)
	good := is.sign(jose.RS256, is.rsa, "r", ok)
	p := strings.Split(good, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	rs := func(claims string) string { return is.sign(jose.RS256, is.rsa, "r", claims) }
	for _, c := range []struct {
		name, token string
		want        status
	}{
		{"good", good, statusOK},
		{"no kid", is.sign(jose.RS256, is.rsa, "", ok), statusOK},
		{"ES256", is.sign(jose.ES256, is.ec, "e", ok), statusOK},
		{"EdDSA", is.sign(jose.EdDSA, is.ed, "d", ok), statusOK},
		{"PS256", is.sign(jose.PS256, is.alt, "p", ok), statusOK},
		{"within the skew", rs(fmt.Sprintf(`{"iss":"https://i","exp":%d,"aud":"a1"}`, now-30)), statusOK},
		{"audience as URL", rs(`{"iss":"https://i","aud":"http://a1/"}`), statusOK},
		{"other audience", rs(`{"iss":"https://i","aud":["zz","a2"]}`), statusOK},
		{"other algorithm than the key's", is.sign(jose.RS512, is.rsa, "r", ok), statusNoKey},
		{"unknown kid", is.sign(jose.RS256, is.rsa, "zz", ok), statusNoKey},
		{"wrong key", is.sign(jose.RS256, is.alt, "r", ok), statusVerify},
		{"EC with the RSA key's kid", is.sign(jose.ES256, is.ec, "r", ok), statusNoKey},
		{"RSA with the EC key's kid", is.sign(jose.RS256, is.rsa, "e", ok), statusVerify},
		{"changed", p[0] + "." + b64([]byte(strings.Replace(ok, "a1", "a2", 1))) + "." + p[2], statusVerify},
		{"expired", rs(fmt.Sprintf(`{"iss":"https://i","exp":%d}`, now-100)), statusExpired},
		{"early", rs(fmt.Sprintf(`{"iss":"https://i","nbf":%d}`, now+100)), statusNotYet},
		{"issuer", rs(`{"iss":"other"}`), statusIssuer},
		{"no issuer", rs(`{}`), statusIssuer},
		{"no audience", rs(`{"iss":"https://i"}`), statusAudience},
		{"wrong audience", rs(`{"iss":"https://i","aud":"zz"}`), statusAudience},
		{"iss", rs(`{"iss":5}`), statusIss},
		{"sub", rs(`{"iss":"https://i","sub":5}`), statusSub},
		{"exp", rs(`{"iss":"https://i","exp":"5"}`), statusExp},
		{"negative exp", rs(`{"iss":"https://i","exp":-5}`), statusExpSign},
		{"nbf", rs(`{"iss":"https://i","nbf":"5"}`), statusNbf},
		{"iat", rs(`{"iss":"https://i","iat":"5"}`), statusIat},
		{"jti", rs(`{"iss":"https://i","jti":5}`), statusJti},
		{"aud", rs(`{"iss":"https://i","aud":5}`), statusAud},
		{"aud list", rs(`{"iss":"https://i","aud":[5]}`), statusAud},
		{"two parts", "a.b", statusFormat},
		{"four parts", "a.b.c.d", statusFormat},
		{"no signature", p[0] + "." + p[1] + ".", statusFormat},
		{"dots", "..", statusFormat},
		{"braces", "{}", statusFormat},
		{"padded", p[0] + "=." + p[1] + "." + p[2], statusHeader64},
		{"header", b64([]byte("{x")) + "." + p[1] + "." + p[2], statusHeaderJSON},
		{"no alg", b64([]byte("{}")) + "." + p[1] + "." + p[2], statusBadAlg},
		{"alg none", b64([]byte(`{"alg":"none"}`)) + "." + p[1] + ".x", statusAlg},
		{"HMAC by the public key", is.sign(jose.HS256, must(json.Marshal(&is.rsa.PublicKey)), "e", ok), statusVerify},
		{"kid", b64([]byte(`{"alg":"RS256","kid":5}`)) + "." + p[1] + "." + p[2], statusBadKid},
		{"payload", p[0] + ".!!." + p[2], statusPayload64},
		{"payload JSON", p[0] + "." + b64([]byte("{x")) + "." + p[2], statusPayload},
		{"signature", p[0] + "." + p[1] + ".!!", statusSignature},
	} {
		d := f.Check(info("/", "authorization", "Bearer "+c.token), nil)
		switch {
		case d == nil && c.want != statusOK:
			t.Errorf("%s: let in, want %s", c.name, c.want)
		case d != nil && d.Body != string(c.want):
			t.Errorf("%s: %s, want %s", c.name, d.Body, c.want)
		case d != nil && d.Status != map[bool]int{true: 403, false: 401}[c.want == statusAudience]:
			t.Errorf("%s: %d", c.name, d.Status)
		}
	}
}

// The answer is Envoy's: body, details, challenge.
func TestDenial(t *testing.T) {
	is := newIssuer(t)
	f := is.filter("", required)
	d := f.Check(info("/a?b"), nil)
	if d == nil || d.Status != 401 || d.Body != "Jwt is missing" || d.Details != "jwt_authn_access_denied{Jwt_is_missing}" || d.Header[0] != (httpmsg.Field{Key: "www-authenticate", Value: `Bearer realm="http://x/a?b"`}) {
		t.Errorf("%+v", d)
	}
	d = f.Check(info("/a", "authorization", "Bearer xyz"), nil)
	if d == nil || d.Header[0].Value != `Bearer realm="http://x/a", error="invalid_token"` {
		t.Errorf("%+v", d)
	}
	if d := f.Check(info("/a"), &PerRoute{Disabled: true}); d != nil {
		t.Errorf("where it is switched off: %+v", d)
	}
	if d := f.Check(info("/a"), &PerRoute{Requirement: "nope"}); d == nil || d.Status != 500 {
		t.Errorf("a requirement that there is not: %+v", d)
	}
	pre := info("/a", "origin", "o", "access-control-request-method", "GET")
	pre.Head.Method = "OPTIONS"
	if d := f.Check(pre, nil); d != nil {
		t.Errorf("a preflight: %+v", d)
	}
	is.jwks = "rubbish"
	token := is.sign(jose.RS256, is.rsa, "r", `{"iss":"https://i"}`)
	if d := is.filter("", required).Check(info("/", "authorization", "Bearer "+token), nil); d == nil || d.Body != string(statusNoKeys) {
		t.Errorf("without keys: %+v", d)
	}
}

func TestRequirements(t *testing.T) {
	is := newIssuer(t)
	f := is.filter("", `{"match": {"path": "/am"}, "requires": {"requires_any": {"requirements": [{"provider_name": "p"}, {"allow_missing": {}}]}}},
		{"match": {"path_separated_prefix": "/amf"}, "requires": {"requires_any": {"requirements": [{"provider_name": "p"}, {"allow_missing_or_failed": {}}]}}},
		{"match": {"prefix": "/all"}, "requires": {"requires_all": {"requirements": [{"provider_name": "p"}, {"allow_missing": {}}]}}},
		{"match": {"prefix": "/aud"}, "requires": {"provider_and_audiences": {"provider_name": "p", "audiences": ["zz"]}}},
		{"match": {"safe_regex": {"regex": "/re/[0-9]"}}, "requires": {"provider_name": "p"}}`)
	good, bad := "Bearer "+is.sign(jose.RS256, is.rsa, "r", `{"iss":"https://i"}`), "Bearer "+is.sign(jose.RS256, is.alt, "r", `{"iss":"https://i"}`)
	other := "Bearer " + is.sign(jose.RS256, is.alt, "r", `{"iss":"other"}`)
	for _, c := range []struct {
		path, auth string
		want       status
	}{
		{"/am", "", statusOK},
		{"/am", good, statusOK},
		{"/am", bad, statusVerify},
		{"/am", other, statusIssuer},
		{"/am", "Basic x", statusOK},
		{"/amf/x", bad, statusOK},
		{"/all", "", statusMissed},
		{"/all", good, statusOK},
		{"/all", bad, statusVerify},
		{"/aud", good, statusAudience},
		{"/re/1?q", "", statusMissed},
		{"/re/x", "", statusOK},
		{"/free", bad, statusOK},
	} {
		i := info(c.path)
		if c.auth != "" {
			i.Head.Header.Add("authorization", c.auth)
		}
		got := statusOK
		if d := f.Check(i, nil); d != nil {
			got = status(d.Body)
		}
		if got != c.want {
			t.Errorf("%s %.20s: %s, want %s", c.path, c.auth, got, c.want)
		}
	}
}

// What a token says goes on; what a client says in its place does not, and the token itself only if it may.
func TestForwarding(t *testing.T) {
	is := newIssuer(t)
	f := is.filter(`, "forward_payload_header": "x-pay", "payload_in_metadata": "payload", "normalize_payload_in_metadata": {"space_delimited_claims": ["scope"]}, "clear_route_cache": true,
		"claim_to_headers": [{"header_name": "x-n", "claim_name": "n.a"}, {"header_name": "x-num", "claim_name": "num"}, {"header_name": "x-fl", "claim_name": "fl"}, {"header_name": "x-t", "claim_name": "t"}, {"header_name": "x-l", "claim_name": "l"}, {"header_name": "x-none", "claim_name": "none"}]`,
		`{"match": {"prefix": "/in"}, "requires": {"provider_name": "p"}}`)
	token := is.sign(jose.RS256, is.rsa, "r", `{"iss":"https://i","n":{"a":"deep"},"num":42,"fl":1.5,"t":true,"l":["x"],"scope":"r w"}`)
	i := info("/in?access_token="+token+"&y=1", "x-pay", "spoof", "x-none", "spoof")
	if d := f.Check(i, nil); d != nil {
		t.Fatal(d.Body)
	}
	for k, v := range map[string]string{"x-pay": strings.Split(token, ".")[1], "x-n": "deep", "x-num": "42", "x-fl": "1.500000", "x-t": "true", "x-l": "WyJ4Il0=", "x-none": ""} {
		if got := i.Head.Header.Value(k); got != v {
			t.Errorf("%s: %q, want %q", k, got, v)
		}
	}
	if i.Head.Path != "/in?y=1" || !i.ClearRoute {
		t.Errorf("%s %v", i.Head.Path, i.ClearRoute)
	}
	payload, _ := i.Metadata("envoy.filters.http.jwt_authn")["payload"].(map[string]any)
	if s, ok := payload["scope"].([]any); !ok || len(s) != 2 || s[1] != "w" {
		t.Errorf("%v", payload)
	}
	// Every token must be good.
	i = info("/in?access_token="+token, "authorization", "Bearer "+token[:len(token)-8]+"AAAAAAAA")
	if d := f.Check(i, nil); d == nil {
		t.Error("one bad token among two")
	}
	// Also where nothing is required.
	i = info("/out", "x-pay", "spoof")
	if f.Check(i, nil); i.Head.Header.Value("x-pay") != "" {
		t.Error("a client sets what only a token may")
	}
}
