package nearest_test

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/nearest"
)

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"image", "image", 0},
		{"imge", "image", 1},
		{"imagee", "image", 1},
		{"imege", "image", 1},
		{"iamge", "image", 1}, // exchanged
		{"ab", "ba", 1},
		{"ca", "abc", 3}, // what was exchanged is not changed again
		{"kitten", "sitting", 3},
		{"abc", "xyz", 3},
	} {
		if got := nearest.Distance(c.a, c.b); got != c.want {
			t.Errorf("Distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
		if got := nearest.Distance(c.b, c.a); got != c.want {
			t.Errorf("Distance(%q, %q) = %d, want %d", c.b, c.a, got, c.want)
		}
	}
}

func TestWord(t *testing.T) {
	known := []string{"cluster", "direction", "fqdn", "port", "sort"}
	for _, c := range []struct {
		word string
		most int
		want string
	}{
		{"dirction", 2, "direction"},
		{"dircetino", 2, "direction"},
		{"dirction", 0, ""},
		{"fqdn", 0, "fqdn"},
		{"pprt", 2, "port"},
		{"qort", 2, "port"}, // as near as sort, and before it
		{"something", 2, ""},
	} {
		if got := nearest.Word(c.word, known, c.most); got != c.want {
			t.Errorf("Word(%q, %d) = %q, want %q", c.word, c.most, got, c.want)
		}
	}
	if got := nearest.Word("x", nil, 5); got != "" {
		t.Errorf("of no words the nearest is %q", got)
	}
}
