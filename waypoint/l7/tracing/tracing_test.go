package tracing

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

const (
	someTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	someSpan  = "00f067aa0ba902b7"
	someID    = "00000000-6d2a-4b6a-8a3a-95a1c2e3d4f5" // its number is 0: whatever share is sampled, it is
	highID    = "0000270f-6d2a-4b6a-8a3a-95a1c2e3d4f5" // its number is 9999
)

func request(headers ...string) *exchange.Info {
	h := &httpmsg.Head{Version: httpmsg.HTTP11, Method: "GET", Authority: "reviews:9080", Path: "/"}
	for i := 0; i < len(headers); i += 2 {
		h.Header.Add(headers[i], headers[i+1])
	}
	r := &exchange.Info{}
	r.Begin(h, &exchange.Conn{})
	if r.ID = h.Header.Value("x-request-id"); r.ID == "" {
		r.ID = someID
		h.Header.Set("x-request-id", someID)
	}
	return r
}

func whole() *Config {
	return &Config{byID: true, pack: true, client: wholly, random: wholly, overall: wholly, Provider: Provider{w3c: true}}
}

var random16, random32 = regexp.MustCompile(`^[0-9a-f]{16}$`), regexp.MustCompile(`^[0-9a-f]{32}$`)

func TestW3C(t *testing.T) {
	for name, tt := range map[string]struct {
		in, want string // traceparent; $ is what was made
		state    string
	}{
		"new":               {"", "00-$-$-01", ""},
		"goes on":           {"00-" + someTrace + "-" + someSpan + "-01", "00-" + someTrace + "-$-01", "a=b"},
		"not sampled":       {"00-" + someTrace + "-" + someSpan + "-00", "00-" + someTrace + "-$-00", ""},
		"other flags":       {"00-" + someTrace + "-" + someSpan + "-03", "00-" + someTrace + "-$-01", ""},
		"short":             {"00-" + someTrace + "-" + someSpan, "", ""},
		"no hexadecimals":   {"00-" + strings.Repeat("x", 32) + "-" + someSpan + "-01", "", ""},
		"no trace":          {"00-" + strings.Repeat("0", 32) + "-" + someSpan + "-01", "", ""},
		"no span":           {"00-" + someTrace + "-0000000000000000-01", "", ""},
		"another separator": {"00_" + someTrace + "-" + someSpan + "-01", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := request()
			if tt.in != "" {
				r = request("traceparent", tt.in, "tracestate", tt.state)
			}
			s := whole().Begin(r, "", rand.New(rand.NewPCG(1, 2)))
			if tt.want == "" {
				if s.Inject(r); !s.Lost || s.Sampled || r.Head.Header.Value("traceparent") != tt.in {
					t.Errorf("a broken context: %v, %q", s, r.Head.Header.Value("traceparent"))
				}
				return
			}
			s.Inject(r)
			want, got := strings.Split(tt.want, "-"), strings.Split(r.Head.Header.Value("traceparent"), "-")
			if len(got) != 4 {
				t.Fatalf("%q", got)
			}
			for i := range want {
				if want[i] == "$" {
					if ok := random16.MatchString(got[i]) || random32.MatchString(got[i]); !ok || got[i] == someSpan {
						t.Errorf("part %d is %q", i, got[i])
					}
				} else if got[i] != want[i] {
					t.Errorf("part %d is %q, want %q", i, got[i], want[i])
				}
			}
			if v := r.Head.Header.Value("tracestate"); v != tt.state {
				t.Errorf("tracestate %q, want %q", v, tt.state)
			}
		})
	}
}

func TestB3(t *testing.T) {
	for name, tt := range map[string]struct {
		in                     []string
		trace, parent, sampled string // trace $: a new one; "" is that nothing is traced
	}{
		"new":                {nil, "$", "", "1"},
		"goes on":            {[]string{b3Trace, someTrace, b3Span, someSpan}, someTrace, someSpan, "1"},
		"short":              {[]string{b3Trace, someSpan, b3Span, someSpan}, someSpan, someSpan, "1"},
		"not sampled":        {[]string{b3Trace, someTrace, b3Span, someSpan, b3Sampled, "0"}, someTrace, someSpan, "0"},
		"old word":           {[]string{b3Trace, someTrace, b3Span, someSpan, b3Sampled, "true"}, someTrace, someSpan, "1"},
		"decision alone":     {[]string{b3Sampled, "0"}, "$", "", "0"},
		"single":             {[]string{b3Single, someTrace + "-" + someSpan}, someTrace, someSpan, "1"},
		"single, no":         {[]string{b3Single, someTrace + "-" + someSpan + "-0"}, someTrace, someSpan, "0"},
		"single with parent": {[]string{b3Single, someTrace + "-" + someSpan + "-1-" + someSpan}, someTrace, someSpan, "1"},
		"single decision":    {[]string{b3Single, "0"}, "$", "", "0"},
		"broken":             {[]string{b3Trace, "x", b3Span, someSpan}, "", "", ""},
		"broken span":        {[]string{b3Trace, someTrace, b3Span, "x"}, "", "", ""},
		"broken single":      {[]string{b3Single, someTrace}, "", "", ""},
		"broken decision":    {[]string{b3Single, someTrace + "-" + someSpan + "-x"}, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := whole()
			c.Provider = Provider{Kind: Zipkin, wide: true}
			r := request(tt.in...)
			s := c.Begin(r, "", rand.New(rand.NewPCG(1, 2)))
			if tt.trace == "" {
				if !s.Lost || s.Sampled {
					t.Errorf("a broken context is followed: %+v", s)
				}
				return
			}
			s.Inject(r)
			h := &r.Head.Header
			if v, ok := h.Get(b3Single); ok { // it goes on as it came
				parts := append(strings.Split(v, "-"), "")
				h.Set(b3Trace, parts[0])
				h.Set(b3Span, parts[1])
				h.Set(b3Sampled, parts[2])
				h.Set(b3Parent, parts[3])
			}
			if got := h.Value(b3Trace); tt.trace != "$" && got != tt.trace || !random32.MatchString(got) && !random16.MatchString(got) {
				t.Errorf("trace %q, want %q", got, tt.trace)
			}
			if got := h.Value(b3Parent); got != tt.parent {
				t.Errorf("parent %q, want %q", got, tt.parent)
			}
			if got := h.Value(b3Sampled); got != tt.sampled {
				t.Errorf("sampled %q, want %q", got, tt.sampled)
			}
			if got := h.Value(b3Span); !random16.MatchString(got) || got == someSpan {
				t.Errorf("span %q", got)
			}
		})
	}
}

func TestSharedSpan(t *testing.T) {
	c := whole()
	c.Provider = Provider{Kind: Zipkin, wide: true, shared: true}
	r := request(b3Trace, someTrace, b3Span, someSpan)
	if s := c.Begin(r, "", rand.New(rand.NewPCG(1, 2))); !s.Shared || string(s.AppendID(nil)) != someSpan || s.HasParent {
		t.Errorf("%+v", s)
	}
}

func TestSampling(t *testing.T) {
	for name, tt := range map[string]struct {
		change  func(*Config)
		in      []string
		sampled bool
		reason  byte
	}{
		"all":                   {nil, nil, true, reasonSampled},
		"none":                  {func(c *Config) { c.random = 0 }, nil, false, reasonNone},
		"by its number":         {func(c *Config) { c.random = 9999 }, []string{"x-request-id", highID}, false, reasonNone},
		"by its number, within": {func(c *Config) { c.random = 1 }, nil, true, reasonSampled},
		"by a client":           {func(c *Config) { c.random = 0 }, []string{"x-client-trace-id", "a"}, true, reasonClient},
		"forced":                {func(c *Config) { c.random = 0 }, []string{"x-envoy-force-trace", "a"}, true, reasonForced},
		"decided before":        {func(c *Config) { c.random = 0 }, []string{"x-request-id", "00000000-6d2a-9b6a-8a3a-95a1c2e3d4f5"}, true, reasonSampled},
		"not at all":            {func(c *Config) { c.overall = 0 }, nil, false, reasonNone},
		"an id that is none":    {nil, []string{"x-request-id", "mine"}, false, 0},
		"whatever the id":       {func(c *Config) { c.byID, c.random = false, 0 }, []string{"x-request-id", "mine"}, true, 0},
		"without a note":        {func(c *Config) { c.pack = false }, nil, true, reasonNone},
	} {
		t.Run(name, func(t *testing.T) {
			c := whole()
			if tt.change != nil {
				tt.change(c)
			}
			r := request(tt.in...)
			s := c.Begin(r, "", rand.New(rand.NewPCG(1, 2)))
			if s.Sampled != tt.sampled {
				t.Errorf("sampled %v", s.Sampled)
			}
			if id := r.Head.Header.Value("x-request-id"); tt.reason != 0 && (id[reasonAt] != tt.reason || id != r.ID) {
				t.Errorf("request id %q, want reason %c", id, tt.reason)
			}
		})
	}
}

func TestOperation(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	r := request()
	if s := whole().Begin(r, "reviews:9080/*", rnd); s.Name != "reviews:9080/*" || s.Decorated != s.Name {
		t.Errorf("%q, told %q", s.Name, s.Decorated)
	}
	r = request(decorator, "mine")
	if s := whole().Begin(r, "reviews:9080/*", rnd); s.Name != "mine" || s.Decorated != "" || r.Head.Header.Value(decorator) != "" {
		t.Errorf("%q, told %q, header %q", s.Name, s.Decorated, r.Head.Header.Value(decorator))
	}
	c := whole()
	c.Egress = true
	r = request()
	if s := c.Begin(r, "", rnd); s.Name != "egress reviews:9080" {
		t.Errorf("%q", s.Name)
	}
	c.Silent = true
	r = request()
	c.Begin(r, "x", rnd).Inject(r)
	if v := r.Head.Header.Value(traceParent); v != "" {
		t.Errorf("told %q", v)
	}
}

// What clients send is followed or refused, and what is passed on can be read again.
func FuzzContexts(f *testing.F) {
	f.Add("00-"+someTrace+"-"+someSpan+"-01", "", "", someTrace, someSpan, "")
	f.Add("", someTrace+"-"+someSpan+"-1-"+someSpan, "1", "", "", "x")
	f.Fuzz(func(t *testing.T, w3c, single, sampled, trace, span, parent string) {
		for _, kind := range []Kind{OpenTelemetryGRPC, Zipkin} {
			c := whole()
			c.Provider.Kind = kind
			r := request()
			for key, v := range map[string]string{traceParent: w3c, b3Single: single, b3Sampled: sampled, b3Trace: trace, b3Span: span, b3Parent: parent} {
				if v != "" {
					r.Head.Header.Add(key, v)
				}
			}
			s := c.Begin(r, "", rand.New(rand.NewPCG(1, 2)))
			if s.Lost {
				continue
			}
			s.Inject(r)
			if _, found := readW3C(&r.Head.Header); found != valid {
				t.Errorf("%q", r.Head.Header.Value(traceParent))
			}
			if _, found := readB3(&r.Head.Header); kind == Zipkin && found != valid {
				t.Errorf("%v", r.Head.Header.Fields())
			}
		}
	})
}
