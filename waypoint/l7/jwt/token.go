package jwt

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"strings"
)

// status is how an authentication ended, in Envoy's words: they are the body of the answer.
type status string

const (
	statusOK         status = "OK"
	statusMissed     status = "Jwt is missing"
	statusNotYet     status = "Jwt not yet valid"
	statusExpired    status = "Jwt is expired"
	statusFormat     status = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
	statusHeader64   status = "Jwt header is an invalid Base64url encoded"
	statusHeaderJSON status = "Jwt header is an invalid JSON"
	statusBadAlg     status = "Jwt header [alg] field is required and must be a string"
	statusAlg        status = "Jwt header [alg] is not supported"
	statusBadKid     status = "Jwt header [kid] field is not a string"
	statusPayload64  status = "Jwt payload is an invalid Base64url encoded"
	statusPayload    status = "Jwt payload is an invalid JSON"
	statusIss        status = "Jwt payload [iss] field is not a string"
	statusSub        status = "Jwt payload [sub] field is not a string"
	statusIat        status = "Jwt payload [iat] field is not an integer"
	statusNbf        status = "Jwt payload [nbf] field is not an integer"
	statusExp        status = "Jwt payload [exp] field is not an integer"
	statusIatSign    status = "Jwt payload [iat] field is not a positive 64 bit integer"
	statusNbfSign    status = "Jwt payload [nbf] field is not a positive 64 bit integer"
	statusExpSign    status = "Jwt payload [exp] field is not a positive 64 bit integer"
	statusJti        status = "Jwt payload [jti] field is not a string"
	statusAud        status = "Jwt payload [aud] field is not a string or string list"
	statusSignature  status = "Jwt signature is an invalid Base64url encoded"
	statusIssuer     status = "Jwt issuer is not configured"
	statusSubject    status = "Subject in Jwt is not allowed"
	statusAudience   status = "Audiences in Jwt are not allowed"
	statusVerify     status = "Jwt verification fails"
	statusNoKey      status = "Jwks doesn't have key to match kid or alg from Jwt"
	statusNoKeys     status = "Jwks doesn't have any valid public key"
	statusMultiple   status = "Found multiple Jwt tokens"
	statusNoExpiry   status = "Jwt must have an expiration"
	statusLifetime   status = "Jwt lifetime exceeds the maximum"
)

// token is a JWT that was read, not yet verified.
type token struct {
	text, alg, kid        string
	headerText            string // as in the token
	payloadText           string
	header                map[string]any
	payload               map[string]any
	issuer, subject       string
	audiences             []string
	issued, before, until int64
	hasUntil, hasIssued   bool
}

// parse reads a token.
func parse(text string) (*token, status) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return nil, statusFormat
	}
	t := &token{text: text, headerText: parts[0], payloadText: parts[1]}
	var s status
	if t.header, s = section(parts[0], statusHeader64, statusHeaderJSON); s != statusOK {
		return nil, s
	}
	var ok bool
	if t.alg, ok = t.header["alg"].(string); !ok {
		return nil, statusBadAlg
	}
	if !supportedAlg(t.alg) {
		return nil, statusAlg
	}
	if v, has := t.header["kid"]; has {
		if t.kid, ok = v.(string); !ok {
			return nil, statusBadKid
		}
	}
	if t.payload, s = section(parts[1], statusPayload64, statusPayload); s != statusOK {
		return nil, s
	}
	if s := t.claims(); s != statusOK {
		return nil, s
	}
	if _, err := base64.RawURLEncoding.DecodeString(parts[2]); err != nil {
		return nil, statusSignature
	}
	return t, statusOK
}

func section(text string, bad64, badJSON status) (map[string]any, status) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, bad64
	}
	var v map[string]any
	if err := json.Unmarshal(raw, &v); err != nil || bytes.HasPrefix(bytes.TrimSpace(raw), []byte("null")) {
		return nil, badJSON
	}
	return v, statusOK
}

// claims reads what the checks need.
func (t *token) claims() status {
	text := func(key string, to *string, bad status) status {
		if v, has := t.payload[key]; has {
			s, ok := v.(string)
			if !ok {
				return bad
			}
			*to = s
		}
		return statusOK
	}
	number := func(key string, to *int64, has *bool, bad, sign status) status {
		if v, ok := t.payload[key]; ok {
			n, ok := v.(float64)
			switch {
			case !ok:
				return bad
			case n < 0 || n > math.MaxInt64/2:
				return sign
			}
			*to, *has = int64(n), true
		}
		return statusOK
	}
	var jti string
	var hasNbf bool
	for _, s := range []status{
		text("iss", &t.issuer, statusIss), text("sub", &t.subject, statusSub),
		number("iat", &t.issued, &t.hasIssued, statusIat, statusIatSign), number("nbf", &t.before, &hasNbf, statusNbf, statusNbfSign),
		number("exp", &t.until, &t.hasUntil, statusExp, statusExpSign), text("jti", &jti, statusJti),
	} {
		if s != statusOK {
			return s
		}
	}
	switch v := t.payload["aud"].(type) {
	case nil:
	case string:
		t.audiences = []string{v}
	case []any:
		for _, a := range v {
			s, ok := a.(string)
			if !ok {
				return statusAud
			}
			t.audiences = append(t.audiences, s)
		}
	default:
		return statusAud
	}
	return statusOK
}
