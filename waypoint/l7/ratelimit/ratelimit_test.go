package ratelimit

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

const always = `"filter_enabled":{"default_value":{"numerator":100}},"filter_enforced":{"default_value":{"numerator":100}},"stat_prefix":"p","always_consume_default_token_bucket":false,`

// parse is a filter of JSON.
func parse(t testing.TB, text string) (*Filter, error) {
	t.Helper()
	p := &localv3.LocalRateLimit{}
	if err := protojson.Unmarshal([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	if err := strict.Check(p); err != nil {
		return nil, err
	}
	return Compile(p)
}

func compile(t testing.TB, text string) *Filter {
	t.Helper()
	f, err := parse(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// client is a request that is asked about again and again.
type client struct {
	info exchange.Info
	ask  Asked
	head httpmsg.Head
	conn exchange.Conn
}

func newClient(headers ...string) *client {
	c := &client{}
	c.head.Reset()
	c.head.Method, c.head.Path = "GET", "/x?q=1"
	for i := 0; i < len(headers); i += 2 {
		c.head.Header.Add(headers[i], headers[i+1])
	}
	return c
}

func (c *client) check(f *Filter, now time.Time) Verdict {
	c.info.Begin(&c.head, &c.conn)
	c.info.Now, c.info.Remote = now, netip.MustParseAddrPort("10.0.0.1:1")
	c.ask = Asked{Info: &c.info, Random: rand.New(rand.NewPCG(1, 2))}
	return f.Check(&c.ask)
}

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func bucketJSON(burst, fill int, every string) string {
	return fmt.Sprintf(`{"max_tokens":%d,"tokens_per_fill":%d,"fill_interval":"%s"}`, burst, fill, every)
}

// byHeader limits by x-user, and requests without it together.
func byHeader(bucket, more string) string {
	return `{` + always + more + `"rate_limits":[{"actions":[{"generic_key":{"descriptor_key":"limit","descriptor_value":"0"}},{"request_headers":{"header_name":"X-User","descriptor_key":"user","skip_if_absent":true}}]}],
	"descriptors":[{"entries":[{"key":"limit","value":"0"},{"key":"user"}],"token_bucket":` + bucket + `},{"entries":[{"key":"limit","value":"0"}],"token_bucket":` + bucket + `}]}`
}

func TestBucket(t *testing.T) {
	t.Parallel()
	r := newRate(3, 2, time.Second) // a token each half a second, three at once
	var b bucket
	at := func(d time.Duration) int64 { return int64(d) }
	for i, c := range []struct {
		at   time.Duration
		want bool
		left uint64
		wait time.Duration
	}{
		{0, true, 2, 0},
		{0, true, 1, 0},
		{0, true, 0, 500 * time.Millisecond},
		{0, false, 0, 500 * time.Millisecond},
		{400 * time.Millisecond, false, 0, 100 * time.Millisecond},
		{500 * time.Millisecond, true, 0, 500 * time.Millisecond},
		{2 * time.Second, true, 2, 0},
		{time.Hour, true, 2, 0},
		{time.Minute, false, 2, 0}, // a clock that goes back gives nothing away
	} {
		got := b.take(&r, at(c.at))
		left, wait := b.left(&r, at(c.at))
		if i == 8 {
			left, wait = b.left(&r, at(time.Hour))
		}
		if got != c.want || left != c.left || wait != c.wait {
			t.Errorf("%d: %v, %d left, %v; want %+v", i, got, left, wait, c)
		}
	}
}

// TestRates: the biggest numbers of the API are no overflow, and what is faster than nanoseconds has no limit.
func TestRates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		max, fill uint64
		every     time.Duration
		first     bool
	}{
		{math.MaxUint32, math.MaxUint32, time.Second, true},
		{math.MaxUint32, 1, 24 * time.Hour, true},
		{1, math.MaxUint32, 50 * time.Millisecond, true},
		{1, 1, 365 * 24 * time.Hour, true},
	} {
		r := newRate(c.max, c.fill, c.every)
		var b bucket
		if got := b.take(&r, 0); got != c.first {
			t.Errorf("%+v: %v (%+v)", c, got, r)
		}
		if _, wait := b.left(&r, 0); wait < 0 {
			t.Errorf("%+v: wait for %v", c, wait)
		}
	}
}

// TestRateHolds: however requests come, no more pass than the burst and what has come since.
func TestRateHolds(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		burst, fill := 1+rnd.Uint64N(20), 1+rnd.Uint64N(50)
		r := newRate(burst, fill, time.Second)
		var b bucket
		now, taken := int64(0), uint64(0)
		for range 400 {
			now += rnd.Int64N(int64(100 * time.Millisecond))
			if b.take(&r, now) {
				taken++
			}
			if most := burst + uint64(float64(now)/float64(r.per)); taken > most {
				t.Fatalf("%d of %d, %d a second: %d passed by %v", taken, burst, fill, taken, time.Duration(now))
			}
		}
	}
}

// TestConcurrently: many who ask at once get exactly what there is.
func TestConcurrently(t *testing.T) {
	t.Parallel()
	f := compile(t, byHeader(bucketJSON(100, 1, "86400s"), ""))
	var passed atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			c := newClient("x-user", "jane")
			for range 100 {
				if !c.check(f, start).Refused {
					passed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if passed.Load() != 100 {
		t.Errorf("%d passed", passed.Load())
	}
	if n := f.Stats(); n.Enabled.Load() != 800 || n.OK.Load() != 100 || n.RateLimited.Load() != 700 || n.Enforced.Load() != 700 {
		t.Errorf("enabled %d, ok %d, limited %d, enforced %d", n.Enabled.Load(), n.OK.Load(), n.RateLimited.Load(), n.Enforced.Load())
	}
}

func TestKeysAreForgotten(t *testing.T) {
	t.Parallel()
	f := compile(t, byHeader(bucketJSON(1, 1, "86400s"), `"max_dynamic_descriptors":2,`))
	ask := func(user string) bool { return newClient("x-user", user).check(f, start).Refused }
	got := []bool{ask("a"), ask("a"), ask("b"), ask("a"), ask("c"), ask("a"), ask("b")}
	if want := []bool{false, true, false, true, false, true, false}; !slices.Equal(got, want) { // c makes b forgotten, which was not seen for longer
		t.Errorf("%v, want %v", got, want)
	}
	if n := f.descriptors[0].live.many.size(); n != 2 {
		t.Errorf("%d are known", n)
	}
}

// TestMemoryIsBounded: whatever clients write, and however the table is divided.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 7, 100, 1000, 5000} {
		table := newTable(limit)
		for i := range 3 * limit {
			table.bucket(fmt.Appendf(nil, "key %d", i))
		}
		if n := table.size(); n > limit+len(table.parts) || n < limit/2 {
			t.Errorf("%d of %d are known", n, limit)
		}
	}
	rate := newRate(100, 100, time.Second)
	s := newShares(&rate, 10)
	var b bucket
	for i := range 1000 {
		s.take(fmt.Appendf(nil, "key %d", i), &b, int64(i)*int64(time.Millisecond))
	}
	if n := s.size(); n > 10 {
		t.Errorf("%d shares", n)
	}
}

func TestDescriptors(t *testing.T) {
	t.Parallel()
	day := bucketJSON(1, 1, "86400s")
	f := compile(t, `{`+always+`"rate_limits":[
	  {"actions":[{"generic_key":{"descriptor_value":"a"}},{"request_headers":{"header_name":"x-user","descriptor_key":"user"}}]},
	  {"actions":[{"remote_address":{}},{"extension":{"name":"e","typed_config":{"@type":"type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor","descriptor_key":"path","text":"request.url_path"}}}]}],
	 "descriptors":[
	  {"entries":[{"key":"generic_key","value":"a"},{"key":"user","value":"gold"}],"token_bucket":`+bucketJSON(3, 1, "86400s")+`},
	  {"entries":[{"key":"generic_key","value":"a"},{"key":"user"}],"token_bucket":`+day+`},
	  {"entries":[{"key":"remote_address","value":"10.0.0.1"},{"key":"path","value":"/slow"}],"token_bucket":`+day+`}]}`)
	for i, c := range []struct {
		user, path string
		refused    bool
	}{
		{"jane", "/x", false},
		{"jane", "/y", true},
		{"joe", "/x", false},
		{"", "/x", false},
		{"", "/x", false},
		{"gold", "/x", false},
		{"gold", "/x", false},
		{"gold", "/x", false},
		{"gold", "/x", true},
		{"", "/slow?a", false},
		{"", "/slow?b", true},
		{"new", "/slow", true},
	} {
		one := newClient()
		one.head.Path = c.path
		if c.user != "" {
			one.head.Header.Add("x-user", c.user)
		}
		if got := one.check(f, start); got.Refused != c.refused {
			t.Errorf("%d: %+v: %+v", i, c, got)
		}
		if got := f.Concerns(&one.ask); (len(got) > 0) != (c.user != "" || strings.HasPrefix(c.path, "/slow")) {
			t.Errorf("%d: %+v: %+v", i, c, got)
		}
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"spiffe://cluster.local/ns/a/sa/b": "a/b true", "": "/ false", "spiffe://td/ns//sa/b": "/ false", "spiffe:///ns/a/sa/b": "/ false",
		"spiffe://td/x/ns/a/sa/b": "/ false", "spiffe://td/ns/a/sa/b/c": "/ false", "https://td/ns/a/sa/b": "/ false", "spiffe://td/ns/a": "/ false",
		"spiffe://td/ns/a/x/sa/b": "/ false",
	} {
		ns, account, ok := source(id)
		if !ok {
			ns, account = "", ""
		}
		if got := fmt.Sprintf("%s/%s %v", ns, account, ok); got != want {
			t.Errorf("%q: %s, want %s", id, got, want)
		}
	}
}

// TestAdoption: limits that are the same go on, others begin anew.
func TestAdoption(t *testing.T) {
	t.Parallel()
	day := bucketJSON(1, 1, "86400s")
	old := compile(t, byHeader(day, ""))
	jane, nobody := newClient("x-user", "jane"), newClient()
	jane.check(old, start)
	nobody.check(old, start)
	same := compile(t, byHeader(day, `"status":{"code":503},`))
	same.Adopt(old)
	if !jane.check(same, start.Add(time.Second)).Refused || !nobody.check(same, start.Add(time.Second)).Refused {
		t.Error("what was counted is forgotten")
	}
	if n := same.Stats().RateLimited.Load(); n != 2 {
		t.Errorf("%d limited", n)
	}
	more := compile(t, byHeader(bucketJSON(2, 2, "86400s"), ""))
	more.Adopt(same)
	if jane.check(more, start.Add(time.Second)).Refused {
		t.Error("a limit that is another one has not begun anew")
	}
	if n := more.Stats().Enabled.Load(); n != 5 {
		t.Errorf("%d enabled: counters go on", n)
	}
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	f := compile(t, strings.Replace(byHeader(bucketJSON(1, 1, "86400s"), ""), `"filter_enforced":{"default_value":{"numerator":100}}`, `"filter_enforced":{"default_value":{"numerator":0}}`, 1))
	c := newClient()
	c.check(f, start)
	if v := c.check(f, start); v.Refused || !v.Over {
		t.Errorf("%+v", v)
	}
	if n := f.Stats(); n.RateLimited.Load() != 1 || n.Enforced.Load() != 0 || f.Enforces() {
		t.Errorf("limited %d, enforced %d", n.RateLimited.Load(), n.Enforced.Load())
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"descriptors":[{"entries":[{"key":"a","value":"b"}],"token_bucket":{"max_tokens":1,"fill_interval":"1s"}}]}`: "rate_limits: is required",
		`{"token_bucket":{"max_tokens":1,"fill_interval":"0.01s"}}`:                                                    "token_bucket.fill_interval: must be at least 50ms",
		`{"token_bucket":{"fill_interval":"1s"}}`:                                                                      "token_bucket.max_tokens: must be greater than 0",
		`{"max_dynamic_descriptors":0}`:                                                                                "max_dynamic_descriptors: 0 is not at least 1",
		`{"stage":1}`:                                                                                                  "stage: is not supported",
		`{"local_rate_limit_per_downstream_connection":true}`:                                                          "local_rate_limit_per_downstream_connection: is not supported",
		`{"rate_limits":[{"actions":[{"source_cluster":{}}]}]}`:                                                        "rate_limits[0].actions[0].source_cluster: is not supported",
		`{"rate_limits":[{"hits_addend":{"number":2},"actions":[{"remote_address":{}}]}]}`:                             "rate_limits[0].hits_addend: is not supported",
		`{"rate_limits":[{"actions":[{"generic_key":{}}]}]}`:                                                           "rate_limits[0].actions[0].generic_key.descriptor_value: is required",
		`{"rate_limits":[{"actions":[{"extension":{"name":"e","typed_config":{"@type":"type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor","descriptor_key":"k","text":"1"}}}]}]}`:                                `rate_limits[0].actions[0].extension.typed_config.text: the expression "1" is none`,
		`{"rate_limits":[{"actions":[{"remote_address":{}}]}],"descriptors":[{"entries":[{"key":"a"}],"token_bucket":{"max_tokens":1,"fill_interval":"1s"}},{"entries":[{"key":"a"}],"token_bucket":{"max_tokens":1,"fill_interval":"1s"}}]}`: "descriptors[1].entries: are those of another one",
	} {
		if _, err := parse(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// FuzzCheck: no configuration that is taken, and no request, brings it down, and no more pass than there are tokens.
func FuzzCheck(f *testing.F) {
	f.Add(uint8(1), uint8(1), "x-user", "jane", "a", int64(5))
	f.Add(uint8(200), uint8(3), "limit", "", "\x00", int64(-9))
	f.Fuzz(func(t *testing.T, burst, keys uint8, name, value, other string, step int64) {
		p := &localv3.LocalRateLimit{}
		if err := protojson.Unmarshal([]byte(byHeader(bucketJSON(int(burst)+1, 1, "86400s"), fmt.Sprintf(`"max_dynamic_descriptors":%d,`, keys))), p); err != nil {
			t.Fatal(err)
		}
		p.RateLimits[0].Actions[1].GetRequestHeaders().HeaderName = name
		p.Descriptors[0].Entries[1].Value = other
		filter, err := Compile(p)
		if err != nil {
			return
		}
		c := newClient(strings.ToLower(name), value)
		passed := 0
		for i := range 300 {
			if !c.check(filter, start.Add(time.Duration(int64(i)*(step%1000)))).Refused {
				passed++
			}
		}
		concerned := slices.Contains([]string{"", value}, other)
		if _, ok := exchange.First(&c.head, strings.ToLower(name)); ok && concerned && passed > int(burst)+1 {
			t.Errorf("%d of %d passed", passed, int(burst)+1)
		}
	})
}
