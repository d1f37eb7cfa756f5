package policy

import "testing"

func TestUsableKeys(t *testing.T) {
	const (
		p256  = `"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"`
		other = `"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"`
		ed    = `"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`
	)
	tests := []struct {
		text, want string
	}{
		{`{"keys":[{` + p256 + `}]}`, `{"keys":[{` + p256 + `}]}`},
		{`{"keys":[{` + p256 + `,"alg":"ES256"}, {` + ed + `}]}`, `{"keys":[{` + p256 + `,"alg":"ES256"}, {` + ed + `}]}`},
		{`{"keys":[{` + p256 + `},{` + other + `}]}`, `{"keys":[{` + p256 + `}]}`},
		{`{"keys":[{` + p256 + `,"alg":"RS256"}]}`, ""},
		{`{"keys":[{` + p256 + `,"kid":7}]}`, ""},
		{`{"keys":[{` + ed + `,"alg":"EdDSA"}]}`, `{"keys":[{` + ed + `,"alg":"EdDSA"}]}`},
		{`{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256"}]}`, `{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256"}]}`},
		{`{"keys":[{"kty":"oct","k":"***"}]}`, ""},
		{`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`, ""},
		{`{"keys":[{"kty":"lead"}]}`, ""},
		{`{"keys":[]}`, ""},
		{`{"keys":7}`, ""},
		{`[]`, ""},
		{``, ""},
		{lockedJWKS(), lockedJWKS()},
	}
	for _, tt := range tests {
		got, ok := usableKeys(tt.text)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("usableKeys(%s) = %s, %v; want %s", tt.text, got, ok, tt.want)
		}
	}
}
