package why

import "testing"

// TestSights: a connection has arrived when it is one more than before at two looks, though streams of one HBONE connection look alike.
func TestSights(t *testing.T) {
	t.Parallel()
	const a, b = "10.0.0.1:4000 10.0.0.9:80", "10.0.0.2:4000 10.0.0.9:80"
	type look = map[string]int
	for name, c := range map[string]struct {
		before look
		looks  []look
		want   string // at the last look; nothing before
	}{
		"none":                            {look{}, []look{{}, {}}, ""},
		"a new one, seen once":            {look{}, []look{{a: 1}}, ""},
		"a new one, seen twice":           {look{}, []look{{a: 1}, {a: 1}}, a},
		"a new one that did not stay":     {look{}, []look{{a: 1}, {}}, ""},
		"one of before":                   {look{a: 1}, []look{{a: 1}, {a: 1}}, ""},
		"one of before, and its like":     {look{a: 1}, []look{{a: 2}, {a: 2}}, a},
		"one of before ends, and another": {look{a: 1}, []look{{}, {a: 1}, {a: 1}}, a},
		"the new one is of another":       {look{a: 1}, []look{{a: 1, b: 1}, {b: 1}}, b},
		"nothing is known of before":      {nil, []look{{b: 1}, {b: 1}}, b},
	} {
		s := sights{before: c.before}
		for i, l := range c.looks {
			want := ""
			if i == len(c.looks)-1 {
				want = c.want
			}
			if got := s.note(l); got != want {
				t.Errorf("%s: look %d told %q, want %q", name, i, got, want)
			}
		}
	}
}

// TestWatched: silence counts when everybody has looked twice.
func TestWatched(t *testing.T) {
	t.Parallel()
	looked := func(n int) *lookout { return &lookout{sights: sights{looks: n}} }
	for _, c := range []struct {
		watch []*lookout
		want  bool
	}{
		{nil, false},
		{[]*lookout{looked(2), looked(3)}, true},
		{[]*lookout{looked(2), looked(1)}, false},
	} {
		if got := watched(c.watch); got != c.want {
			t.Errorf("%d lookouts: %v, want %v", len(c.watch), got, c.want)
		}
	}
}
