package l7

import "testing"

// What Envoy 1.40 forwarded, and what it did not.
func TestValidReferer(t *testing.T) {
	for _, v := range []string{
		"", "jason", "1", "*", "red-1", "user=jason", "http://a/b", "https://x", "?", "%zz", "%", "//", "/", "a/b", "a'b", "(", "!", ";", "-", "~", "/a:b",
	} {
		if !validReferer(v) {
			t.Errorf("%q is refused", v)
		}
	}
	for _, v := range []string{
		"a\tb", "a b", "a, b", "\"", "<", "\\", "^", "`", "{", "|", "#", "http://", "http://a b", "://", "[", "http://[::1", "http://a:99999/", "a:b", ":",
		"http://a#b#c", "http://a/#b", "http://user@a/", "\u00e9", "\x80\xff", "http://a/\u00e9",
	} {
		if validReferer(v) {
			t.Errorf("%q is taken", v)
		}
	}
}
