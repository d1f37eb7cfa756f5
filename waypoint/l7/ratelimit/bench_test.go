package ratelimit

import (
	"testing"
	"time"
)

// cases are what a request may meet.
func cases(t testing.TB) map[string]struct {
	filter *Filter
	client *client
} {
	id := []string{SourceHeader, "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"}
	account := `{` + always + `"rate_limits":[{"actions":[{"generic_key":{"descriptor_key":"limit","descriptor_value":"0"}},{"extension":{"name":"e","typed_config":{"@type":"type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor","descriptor_key":"sa","skip_if_error":true,"text":"` +
		`re.extract(request.headers['x-isthmus-ratelimit-source'], '^spiffe://[^/]+/ns/([^/]+)/sa/([^/]+)$', r'\\1/\\2')"}}}]}],
	 "descriptors":[{"entries":[{"key":"limit","value":"0"},{"key":"sa"}],"token_bucket":` + bucketJSON(1, 1, "86400s") + `}]}`
	type one = struct {
		filter *Filter
		client *client
	}
	return map[string]one{
		"passes":          {compile(t, byHeader(bucketJSON(1_000_000_000, 1_000_000_000, "1s"), "")), newClient("x-user", "jane")},
		"limited":         {compile(t, byHeader(bucketJSON(1, 1, "86400s"), "")), newClient("x-user", "jane")},
		"by account":      {compile(t, account), newClient(id...)},
		"fair, limited":   {compile(t, fairFilter(bucketJSON(1, 1, "86400s"))), newClient("x-user", "jane")},
		"fair, passes":    {compile(t, fairFilter(bucketJSON(900_000_000, 900_000_000, "1s"))), newClient("x-user", "jane")},
		"nothing matches": {compile(t, fairFilter(bucketJSON(1, 1, "1s"))), newClient()},
	}
}

// TestNoAllocations: after the first request of a client, whether it passes or not.
func TestNoAllocations(t *testing.T) {
	for name, c := range cases(t) {
		ask := func() { c.client.again(c.filter, start) }
		c.client.check(c.filter, start)
		ask()
		if n := testing.AllocsPerRun(200, ask); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// again asks once more, without making anything new.
func (c *client) again(f *Filter, now time.Time) Verdict {
	c.info.Scratch.Reset()
	c.info.Now = now
	return f.Check(&c.ask)
}

func BenchmarkCheck(b *testing.B) {
	for name, c := range cases(b) {
		b.Run(name, func(b *testing.B) {
			c.client.check(c.filter, start)
			b.ReportAllocs()
			for b.Loop() {
				c.client.again(c.filter, start)
			}
		})
	}
}
