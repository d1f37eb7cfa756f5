package jwt

import "testing"

// Whatever a client puts where a token is expected is refused or read, and never panics.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "..", "a.b.c", "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJpIiwiZXhwIjoxfQ.AA", "eyJhbGciOiJub25lIn0.e30.", "e30.bnVsbA.AA", "bnVsbA.e30.AA"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tok, st := parse(fromToken(s))
		if (tok == nil) != (st != statusOK) {
			t.Fatalf("%q: %v %s", s, tok, st)
		}
		if tok != nil && verify(nil, tok) != statusNoKey {
			t.Fatalf("%q is verified without a key", s)
		}
	})
}
