package normalize

import (
	"regexp"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

// What Envoy 1.40 forwarded when it was sent these paths with normalize_path.
func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		"/a/./b/../c?x=1": "/a/c?x=1", "/..": "/", "/../a": "/a", "/a/..": "/", "/a/.": "/a/", "/a/...": "/a/...", "/a//b": "/a//b", "//a": "//a",
		"/a//../b": "/a/b", "/%": "/%", "/%zz": "/%zz", "/%4": "/%4", `/a\b`: "/a/b", `/a\..\b`: "/b", "/a%2fb": "/a%2fb", "/a%5cb": "/a%5cb",
		"/a?b=/../c": "/a?b=/../c", "/a/../b?x=%2e%2e": "/b?x=%2e%2e", "/%25%32%65": "/%252e", "/a;b/..": "/", "/.a": "/.a", "/a/..b": "/a/..b",
		"/a/.?x": "/a/?x", "/a/%2E%2e": "/", "/?": "/?", "/a/../..": "/", "/%2e%2e%2fa": "/..%2fa", "/%41%7a%7E%2D": "/Az~-", `/a"<>^` + "`{|}b": "/a%22%3C%3E%5E%60%7B%7C%7Db",
		"/a%00b": "400", "/a#b": "400", "/a?x#b": "400", "/a\x7f": "400", "/a\x80": "400", "/\u00e9": "/%C3%A9", "/a\xc3": "400", "/%2e/b": "/b", "/.%2e/b": "/b",
	} {
		var mem exchange.Scratch
		got, res := Path(in, Options{Canonical: true}, &mem)
		if res == Reject {
			got = "400"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestOptions(t *testing.T) {
	all := Options{Canonical: true, MergeSlashes: true, Escaped: EscapedForward}
	for _, c := range []struct {
		in   string
		opts Options
		want string
		res  Result
	}{
		{"/a/../b", Options{}, "/a/../b", OK},
		{"//a///b?x=//", Options{MergeSlashes: true}, "/a/b?x=//", OK},
		{"/a%2F..%2fc", all, "/c", OK},
		{"/a%5cb%5C?%2f", all, "/a/b/?%2f", OK},
		{"/a/%2e%2e%2Fb", all, "/b", OK},
		{"/a%2f%2fb", all, "/a/b", OK},
		{"/a%2Fb", Options{Escaped: EscapedReject}, "/a%2Fb", Reject},
		{"/ab?%2f", Options{Escaped: EscapedReject}, "/ab?%2f", OK},
		{"/a%2Fb?c", Options{Escaped: EscapedRedirect}, "/a/b?c", Redirect},
		{"/a%2F%2e%2e", Options{Escaped: EscapedRedirect, Canonical: true}, "/", Redirect},
	} {
		var mem exchange.Scratch
		if got, res := Path(c.in, c.opts, &mem); got != c.want || res != c.res {
			t.Errorf("%s: %s %d, want %s %d", c.in, got, res, c.want, c.res)
		}
	}
}

// naive is the same, said slowly: decode what is unreserved, split at slashes, resolve, escape.
func naive(path string, o Options) (string, bool) {
	if strings.Contains(path, "#") {
		return "", false
	}
	p, query := path, ""
	if i := strings.Index(path, "?"); i >= 0 {
		p, query = path[:i], path[i:]
	}
	if o.Escaped == EscapedForward {
		p = regexp.MustCompile(`(?i)%2f`).ReplaceAllString(p, "/")
		p = regexp.MustCompile(`(?i)%5c`).ReplaceAllString(p, `\`)
	}
	if o.Canonical {
		for i := range len(p) {
			if p[i] < 0x20 || p[i] >= 0x7f {
				return "", false
			}
		}
		if regexp.MustCompile(`%00`).MatchString(p) || !strings.HasPrefix(p, "/") && !strings.HasPrefix(p, `\`) {
			return "", false
		}
		p = regexp.MustCompile(`%[0-9A-Fa-f]{2}`).ReplaceAllStringFunc(p, func(s string) string {
			if v, _ := unhex(s); regexp.MustCompile(`[A-Za-z0-9._~-]`).MatchString(string(rune(v))) && v < 0x80 {
				return string(rune(v))
			}
			return s
		})
		var done []string
		segments := strings.Split(strings.ReplaceAll(p, `\`, "/")[1:], "/")
		for i, s := range segments {
			last := i == len(segments)-1
			switch {
			case s == "." && last:
				done = append(done, "")
			case s == ".":
			case s == "..":
				if len(done) > 0 {
					done = done[:len(done)-1]
				}
				if last {
					done = append(done, "")
				}
			default:
				done = append(done, s)
			}
		}
		p = "/" + strings.Join(done, "/")
		for _, c := range "\"<>^`{|} " {
			p = strings.ReplaceAll(p, string(c), "%"+string(hexDigits[c>>4])+string(hexDigits[c&15]))
		}
	}
	if o.MergeSlashes {
		p = regexp.MustCompile(`/+`).ReplaceAllString(p, "/")
	}
	return p + query, true
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"/a/./b/../c?x=1", "/%2e%2e/%41", `/a\..\b`, "/a%2F..%5Cc", "//", "/a/..", "/..", "/.", `\a`, "/%00", "/{x}", "/a/.../..", "/%25%32%65"} {
		f.Add(s, true, true, true)
		f.Add(s, true, false, false)
	}
	f.Fuzz(func(t *testing.T, path string, canonical, merge, unescape bool) {
		if path == "" {
			return
		}
		o := Options{Canonical: canonical, MergeSlashes: merge}
		if unescape {
			o.Escaped = EscapedForward
		}
		var mem exchange.Scratch
		got, res := Path(path, o, &mem)
		want, ok := naive(path, o)
		if ok != (res != Reject) || ok && got != want {
			t.Fatalf("%q: %q %d, want %q %v", path, got, res, want, ok)
		}
		if !ok {
			return
		}
		// What is canonical has no dot segment left, and stays what it is unless an escape was hidden in an escape.
		if canonical && regexp.MustCompile(`/\.\.?(/|$)`).MatchString(strings.SplitN(got, "?", 2)[0]) {
			t.Fatalf("%q: %q has dot segments", path, got)
		}
	})
}
