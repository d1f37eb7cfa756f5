package ratelimit

import (
	"fmt"
	"strings"
	"time"
)

// Concern is a limit that a request would take a token of.
type Concern struct {
	// Limit is the value by which its descriptors begin, Values the others, "key value" each.
	Limit  string
	Values []string
	// Rate is as people write it: "20 requests a second, 50 at once".
	Rate string
	// Divided is what it is fairly divided among: keys; empty when it is not.
	Divided string
}

// Concerns are the limits that concern a request. Nothing is taken.
func (f *Filter) Concerns(r *Asked) (out []Concern) {
	if f.enabled == 0 {
		return nil
	}
	for _, s := range f.sequences {
		pairs, ok := s.make(r, nil)
		if !ok {
			continue
		}
		d := s.find(pairs)
		if d == nil {
			continue
		}
		c := Concern{Limit: pairs[0].value, Rate: d.rate.String()}
		for _, p := range pairs[1:] {
			c.Values = append(c.Values, p.key+" "+p.value)
		}
		if d.fair != nil {
			var keys []string
			for i := range d.fair.actions[1:] {
				keys = append(keys, d.fair.actions[i+1].key)
			}
			c.Divided = strings.Join(keys, ", ")
		}
		out = append(out, c)
	}
	return out
}

// String is as people write it.
func (r rate) String() string {
	every := map[time.Duration]string{time.Second: "second", time.Minute: "minute", time.Hour: "hour", 24 * time.Hour: "day"}[r.every]
	if every == "" {
		every = r.every.String()
	}
	text := fmt.Sprintf("%d requests a %s", r.tokens, every)
	if r.max != r.tokens {
		text += fmt.Sprintf(", %d at once", r.max)
	}
	return text
}
