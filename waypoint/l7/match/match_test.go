package match

import (
	"testing"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
)

func TestString(t *testing.T) {
	for _, c := range []struct {
		matcher string
		yes, no []string
	}{
		{`{"exact": "Ab"}`, []string{"Ab"}, []string{"ab", "Abc", ""}},
		{`{"exact": "Ab", "ignore_case": true}`, []string{"Ab", "aB"}, []string{"abc"}},
		{`{"prefix": "Ab"}`, []string{"Ab", "Abc"}, []string{"abc", "A"}},
		{`{"prefix": "Ab", "ignore_case": true}`, []string{"abX"}, []string{"a", "xab"}},
		{`{"suffix": "Ab"}`, []string{"Ab", "xAb"}, []string{"xab", "b"}},
		{`{"suffix": "Ab", "ignore_case": true}`, []string{"xaB"}, []string{"abx"}},
		{`{"contains": "Ab"}`, []string{"xAbx"}, []string{"xabx"}},
		{`{"contains": "Ab", "ignore_case": true}`, []string{"xaBx"}, []string{"a"}},
		{`{"safe_regex": {"regex": "a|b+"}}`, []string{"a", "bb"}, []string{"ab", "a\n", "A"}},
	} {
		p := &matcherv3.StringMatcher{}
		if err := protojson.Unmarshal([]byte(c.matcher), p); err != nil {
			t.Fatal(err)
		}
		m, err := CompileString(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range c.yes {
			if !m.Match(s) {
				t.Errorf("%s does not match %q", c.matcher, s)
			}
		}
		for _, s := range c.no {
			if m.Match(s) {
				t.Errorf("%s matches %q", c.matcher, s)
			}
		}
	}
	if _, err := CompileString(&matcherv3.StringMatcher{}); err == nil {
		t.Error("nothing to compare with")
	}
}

func TestQueryParameter(t *testing.T) {
	for path, want := range map[string]string{"/p?a=1&b=2": "1", "/p?b&a=": "", "/p?ab=1": "-", "/p": "-", "/p?a": "", "/p?x=a=1": "-", "/p?b=1&a=1=2&a=3": "1=2", "/p?&&a=4": "4"} {
		v, ok := QueryParameter(path, "a")
		if !ok {
			v = "-"
		}
		if v != want {
			t.Errorf("%s: %q, want %q", path, v, want)
		}
	}
}
