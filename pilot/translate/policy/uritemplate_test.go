package policy

import (
	"strings"
	"testing"
)

func TestURITemplate(t *testing.T) {
	tests := map[string]string{
		"/foo/{*}":                              "/foo/*",
		"/foo/{**}/":                            "/foo/**/",
		"/foo/{*}/bar/{**}":                     "/foo/*/bar/**",
		"/{**}":                                 "/**",
		"/-._~%!$&'()+,;:@=/{*}":                "/-._~%!$&'()+,;:@=/*",
		"/foo/{**}/x/{*}":                       "",
		"/{**}/{**}":                            "",
		"/foo/{*}.txt":                          "",
		"/foo*/{*}":                             "",
		"/foo/{name}":                           "",
		"/foo//{*}":                             "",
		"foo/{*}":                               "",
		"{*}":                                   "",
		"/a b/{*}":                              "",
		"/a?b/{*}":                              "",
		"/" + strings.Repeat("a", 255) + "/{*}": "",
		"/\x00/{*}":                             "",
		"/{*}/{*}/{*}/{*}/{*}/{*}/":             "/*/*/*/*/*/*/",
	}
	for in, want := range tests {
		got, err := uriTemplate(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("uriTemplate(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}
