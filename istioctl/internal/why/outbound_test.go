package why

import (
	"slices"
	"testing"
)

// TestSharesOfNestedBranches: what a branch says of a part of its own counts for that part only.
func TestSharesOfNestedBranches(t *testing.T) {
	t.Parallel()
	way := func(count int, outcome string, share int, reached ...string) branch {
		return branch{count, path{verdict: Verdict{Outcome: outcome, Share: share, Reached: reached}}}
	}
	for name, c := range map[string]struct {
		branches []branch
		outcome  string
		share    int
	}{
		"one":                        {[]branch{way(1, Allowed, 0)}, Allowed, 0},
		"all alike":                  {[]branch{way(1, Denied, 0), way(3, Denied, 0)}, Denied, 0},
		"a fourth":                   {[]branch{way(3, Allowed, 0), way(1, Denied, 0)}, Denied, 25},
		"the worst of three":         {[]branch{way(1, Allowed, 0), way(1, Broken, 0), way(2, Denied, 0)}, Broken, 25},
		"a part of a branch":         {[]branch{way(1, Allowed, 0), way(1, Denied, 20)}, Denied, 10},
		"parts of all branches":      {[]branch{way(3, Denied, 20), way(1, Denied, 0)}, Denied, 40},
		"a part of one that is last": {[]branch{way(1, Denied, 50), way(1, Denied, 50)}, Denied, 50},
		"less than a hundredth":      {[]branch{way(999, Allowed, 0), way(1, Denied, 20)}, Denied, 1},
		"a branch of branches": {
			[]branch{way(1, Allowed, 0), {1, worst([]branch{way(1, Allowed, 0), {1, worst([]branch{way(4, Allowed, 0), way(1, Broken, 0)})}})}}, Broken, 5,
		},
	} {
		if v := worst(c.branches).verdict; v.Outcome != c.outcome || v.Share != c.share {
			t.Errorf("%s: %d %% %s, want %d %% %s", name, v.Share, v.Outcome, c.share, c.outcome)
		}
	}
	if got := worst([]branch{way(1, Allowed, 0, "a", "b"), way(1, Denied, 0, "b", "c")}).verdict.Reached; !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("reached %q", got)
	}
}
