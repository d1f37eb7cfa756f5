package expr

import (
	"strings"
	"testing"
	"time"
)

type values map[string]any

func (v values) Attribute(root string) (any, bool) { x, ok := v[root]; return x, ok }

func sample() values {
	return values{
		"request":  map[string]any{"path": "/a", "headers": map[string]string{"x-a": "1"}, "size": int64(7), "duration": 20 * time.Millisecond},
		"response": map[string]any{"code": int64(503)},
	}
}

func TestTrue(t *testing.T) {
	for expression, want := range map[string]bool{
		"response.code >= 500":                               true,
		"response.code >= 500 && request.path == '/b'":       false,
		"request.headers['x-a'] == '1'":                      true,
		"request.headers['x-b'] == '1'":                      false, // there is none
		"'x-b' in request.headers":                           false,
		"!('x-b' in request.headers)":                        true,
		"has(response.code)":                                 true,
		"has(response.grpc_status)":                          false,
		"connection.mtls":                                    false,
		"connection.mtls || response.code == 503":            true,
		"request.duration > duration('10ms')":                true,
		"request.size == 7 ? true : false":                   true,
		"request.path.startsWith('/a')":                      true,
		"request.path.matches('^/[ab]$')":                    true,
		"response.code":                                      false, // no truth
		"upstream_peer.workload == 'x' || request.size == 7": true,
	} {
		p, err := Compile(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		if got := p.True(sample()); got != want {
			t.Errorf("%s: %v", expression, got)
		}
	}
}

func TestText(t *testing.T) {
	for expression, want := range map[string]string{
		"request.path": "/a", "response.code": "503", "string(response.code)": "503", "'x'": "x", "request.nothing": "-", "true": "true",
		"request.headers": "-", "request.duration": "20ms",
	} {
		p, err := Compile(expression)
		if err != nil {
			t.Fatal(expression, err)
		}
		got, ok := p.Text(sample())
		if !ok {
			got = "-"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", expression, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	for expression, want := range map[string]string{
		"":                            "line 1",
		"response.code >=":            "line 1",
		"respons.code == 1":           "undeclared reference to 'respons'",
		"nothing(request.path)":       "undeclared reference to 'nothing'",
		"1 + 'a'":                     "no matching overload",
		strings.Repeat("a", 1+16<<10): "too long",
	} {
		if _, err := Compile(expression); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %q", expression, err, want)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{"response.code >= 500", "request.headers['a'] == 'b' && !connection.mtls", "[1,2].all(x, x > request.size)", "'a'.matches('(')"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) {
		if p, err := Compile(s); err == nil {
			p.True(sample())
			p.Text(sample())
		}
	})
}
