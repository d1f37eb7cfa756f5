package dump

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestUnified: hunks have the right numbers, and applying them makes the one from the other.
func TestUnified(t *testing.T) {
	t.Parallel()
	var a []string
	for i := range 30 {
		a = append(a, fmt.Sprint(i))
	}
	b := slices.Insert(slices.Delete(slices.Clone(a), 4, 5), 19, "x", "y")
	got := strings.Join(unified("a", "b", a, b), "\n")
	want := "--- a\n+++ b\n@@ -2,7 +2,6 @@\n 1\n 2\n 3\n-4\n 5\n 6\n 7\n@@ -18,6 +17,8 @@\n 17\n 18\n 19\n+x\n+y\n 20\n 21\n 22"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if out := unified("a", "b", a, a); out != nil {
		t.Errorf("of the same: %v", out)
	}
	// One hunk when the surroundings touch.
	if out := unified("a", "b", a, slices.Delete(slices.Delete(slices.Clone(a), 10, 11), 4, 5)); len(out) != 3+13 {
		t.Errorf("%d lines: %v", len(out), out)
	}
	many, more := make([]string, 3000), make([]string, 3000)
	for i := range many {
		many[i], more[i] = fmt.Sprint("a", i), fmt.Sprint("b", i)
	}
	if out := unified("a", "b", many, more); len(out) != 6003 {
		t.Errorf("of what is too much to compare: %d lines", len(out))
	}
}

// TestNormal: what is written differently and means the same is the same, and no more than that.
func TestNormal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{`{"connect_timeout":"10s","n":0.1}`, `{"n":0.10000000149011612,"connectTimeout":"10s"}`, true},
		{`{"n":1.0}`, `{"n":1}`, true},
		{`{"n":4294967295}`, `{"n":4294967294}`, false},
		{`{"@type":"a/google.protobuf.Empty","value":{}}`, `{"@type":"a/google.protobuf.Empty"}`, true},
		{`{"value":{}}`, `{}`, false},
		{`{"private_key":{"filename":"[redacted]"}}`, `{"privateKey":{"inlineBytes":"c2VjcmV0"}}`, true},
		{`{"l":[1,2]}`, `{"l":[2,1]}`, false},
	} {
		a, err := decode([]byte(c.a))
		if err != nil {
			t.Fatal(err)
		}
		b, err := decode([]byte(c.b))
		if err != nil {
			t.Fatal(err)
		}
		if same := slices.Equal(written(a), written(b)); same != c.same {
			t.Errorf("%s and %s: %t", c.a, c.b, same)
		}
	}
}
