package route

import (
	"math"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
)

func TestFormat(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                       "plain",
		"100%":                        "100%%",
		"%%":                          "%%",
		"%REQ(x-a)%":                  "%REQ(x-a)%",
		"%REQ(:path)% and %NOPE%":     "%REQ(:path)% and %%NOPE%%",
		"%REQ(bad name)%":             "%%REQ(bad name)%%",
		"%DOWNSTREAM_REMOTE_ADDRESS%": "%DOWNSTREAM_REMOTE_ADDRESS%",
		"50%%REQ(a)%":                 "50%%REQ(a)%%",
		"%":                           "%%",
		"":                            "",
	} {
		if got := Format(in); got != want {
			t.Errorf("Format(%q) = %q, want %q", in, got, want)
		}
	}
	if got := Literal("%REQ(a)%"); got != "%%REQ(a)%%" {
		t.Errorf("Literal: %q", got)
	}
}

func TestKebab(t *testing.T) {
	for in, want := range map[string]string{
		"VirtualService": "virtual-service", "HTTPRoute": "http-route", "GRPCRoute": "grpc-route", "Gateway": "gateway", "": "",
	} {
		if got := kebab(in); got != want {
			t.Errorf("kebab(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestChecks(t *testing.T) {
	long := strings.Repeat("x", maxValue+1)
	for name, c := range map[string]struct {
		err error
		bad bool
	}{
		"regex":                 {StringMatch{Kind: Regex, Value: "a+"}.Check(), false},
		"regex that is none":    {StringMatch{Kind: Regex, Value: "a("}.Check(), true},
		"empty regex":           {StringMatch{Kind: Regex}.Check(), true},
		"empty exact":           {StringMatch{Kind: Exact}.Check(), false},
		"empty prefix":          {StringMatch{Kind: Prefix}.Check(), true},
		"no UTF-8":              {StringMatch{Kind: Exact, Value: "\xff"}.Check(), true},
		"path":                  {Path{Kind: PathSegments, Value: "/a"}.Check(), false},
		"path without a slash":  {Path{Kind: PathSegments, Value: "a"}.Check(), true},
		"path with a query":     {Path{Kind: PathSegments, Value: "/a?b"}.Check(), true},
		"any path":              {Path{}.Check(), false},
		"name":                  {CheckName("x-a"), false},
		"no name":               {CheckName(""), true},
		"name with a space":     {CheckName("x a"), true},
		"pseudo header":         {CheckName(":path"), true},
		"value":                 {CheckValue("a b\tc"), false},
		"value with a new line": {CheckValue("a\r\nb"), true},
		"value that is long":    {CheckValue(long), true},
		"substitution":          {RegexRewrite{Pattern: "(a)(b)", Substitution: `/\2\1\0\\`}.Check(), false},
		"group that is not":     {RegexRewrite{Pattern: "(a)", Substitution: `\2`}.Check(), true},
		"odd escape":            {RegexRewrite{Pattern: "(a)", Substitution: `\n`}.Check(), true},
		"backslash at the end":  {RegexRewrite{Pattern: "(a)", Substitution: `\`}.Check(), true},
	} {
		if (c.err != nil) != c.bad {
			t.Errorf("%s: %v", name, c.err)
		}
	}
}

func TestWeightsKeepWithin32Bits(t *testing.T) {
	targets := []Target{{Cluster: "a", Weight: math.MaxUint32}, {Cluster: "b", Weight: math.MaxUint32}, {Cluster: "c", Weight: 1}, {Cluster: "d"}}
	out := weighted(targets)
	var sum uint64
	for _, o := range out {
		sum += uint64(o.Weight)
	}
	if len(out) != 3 || sum > math.MaxUint32 || out[0].Weight != out[1].Weight || out[2].Weight == 0 {
		t.Errorf("%+v", out)
	}
	if targets[0].Weight != math.MaxUint32 {
		t.Error("the input was changed")
	}
}

func TestRetry(t *testing.T) {
	if got := (*Retry)(nil).envoy(false); got != nil {
		t.Errorf("no retries: %v", got)
	}
	if got := (&Retry{}).envoy(false); got != nil {
		t.Errorf("0 attempts: %v", got)
	}
	got := DefaultRetry().envoy(false)
	if got.RetryOn != "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes" || got.NumRetries.Value != 2 ||
		got.HostSelectionRetryMaxAttempts != 5 || len(got.RetryHostPredicate) != 1 || got.RetriableStatusCodes[0] != 503 {
		t.Errorf("the default: %v", got)
	}
	// A hash would pick the same host each time.
	if got := DefaultRetry().envoy(true); got.HostSelectionRetryMaxAttempts != 0 || got.RetryHostPredicate != nil {
		t.Errorf("with a hash: %v", got)
	}
	got = (&Retry{Attempts: 1, On: []string{"reset"}, Codes: []uint32{429}, Backoff: time.Second, BackoffMax: time.Minute}).envoy(false)
	if got.RetryOn != "reset,retriable-status-codes" || got.RetryBackOff.MaxInterval.Seconds != 60 {
		t.Errorf("own: %v", got)
	}
}

// What Envoy would refuse is left out, by the route or the domain, and the rest stays.
func TestRefusedPiecesAreLeftOut(t *testing.T) {
	to := &Forward{Targets: []Target{{Cluster: "c"}}}
	config := Config{Name: "r", Hosts: []VirtualHost{
		{Name: "a", Domains: []string{"a.test", "A.test"}, Routes: []Route{
			{Name: "good", Forward: to},
			{Name: "no cluster", Forward: &Forward{Targets: []Target{{}, {}}}},
			{Name: "status", Direct: &Direct{Status: 99}},
			{Name: "no UTF-8", Direct: &Direct{Status: 200}, Decorator: "\xff"},
			{Name: "nothing"},
			{Name: "fault", Forward: to, Fault: &Fault{Status: 7, AbortShare: Everything}},
			{Name: "large", Direct: &Direct{Status: 200, Body: make([]byte, bodyLimit+1)}},
			{Name: "bytes", Direct: &Direct{Status: 200, Body: []byte{0xff}}},
		}},
		{Name: "b", Domains: []string{"a.TEST"}},
	}}
	out, problems := config.Envoy()
	if err := out.ValidateAll(); err != nil {
		t.Error(err)
	}
	if len(out.VirtualHosts) != 1 || len(out.VirtualHosts[0].Domains) != 1 {
		t.Errorf("hosts: %v", out.VirtualHosts)
	}
	var names []string
	for _, r := range out.VirtualHosts[0].Routes {
		names = append(names, r.Name)
	}
	if strings.Join(names, ",") != "good,large,bytes" || len(problems) != 5 {
		t.Errorf("kept %v, problems %v", names, problems)
	}
	if out.MaxDirectResponseBodySizeBytes.GetValue() != maxBody {
		t.Errorf("body limit %v", out.MaxDirectResponseBodySizeBytes)
	}
}

func TestMatchAll(t *testing.T) {
	all := []Match{{}, {Path: Path{Kind: PathPrefix, Value: "/"}}, {Path: Path{Kind: PathRegex, Value: ".*"}}}
	for _, m := range all {
		if !m.All() {
			t.Errorf("%+v takes every request", m)
		}
	}
	some := []Match{{SourceNamespace: "a"}, {Path: Path{Kind: PathExact, Value: "/"}}, {Headers: []HeaderMatch{{Name: "a"}}}, {Query: []QueryMatch{{Name: "q"}}}}
	for _, m := range some {
		if m.All() {
			t.Errorf("%+v does not take every request", m)
		}
	}
}

func TestHeaderOps(t *testing.T) {
	ops := HeaderOps{Set: []Header{{"a", "1"}}, Add: []Header{{"b", ""}}}.Then(HeaderOps{Set: []Header{{"c", "3"}}, Remove: []string{"d"}})
	got := ops.add()
	if len(got) != 3 || got[0].Header.Key != "a" || got[1].Header.Key != "c" || got[2].Header.Key != "b" || len(ops.Remove) != 1 {
		t.Fatalf("%v", got)
	}
	if got[0].AppendAction != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD || got[2].AppendAction != corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD {
		t.Errorf("actions: %v", got)
	}
	if got[2].KeepEmptyValue {
		t.Errorf("an empty value is sent: %v", got)
	}
}

func TestHashKinds(t *testing.T) {
	ttl := time.Minute
	for _, h := range []Hash{
		{Header: "x"}, {Query: "q"}, {SourceIP: true}, {Cookie: &HashCookie{Name: "c", Path: "/", TTL: &ttl, Attributes: []Header{{"SameSite", "Lax"}}}},
	} {
		r := Route{Forward: &Forward{Targets: []Target{{Cluster: "c"}}, Hash: []Hash{h}}}
		out, err := r.envoy()
		if err != nil || len(out.GetRoute().GetHashPolicy()) != 1 {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

func TestRedirectCodes(t *testing.T) {
	for code, want := range map[uint32]routev3.RedirectAction_RedirectResponseCode{
		301: routev3.RedirectAction_MOVED_PERMANENTLY, 302: routev3.RedirectAction_FOUND, 303: routev3.RedirectAction_SEE_OTHER,
		307: routev3.RedirectAction_TEMPORARY_REDIRECT, 308: routev3.RedirectAction_PERMANENT_REDIRECT,
	} {
		if got := (&Redirect{Code: code}).envoy().ResponseCode; got != want {
			t.Errorf("%d: %v", code, got)
		}
	}
}

// The same model gives the same bytes: that is what makes a change of nothing no change on the wire.
func TestSameBytes(t *testing.T) {
	config := Config{Name: "r", Hosts: []VirtualHost{{Name: "a", Domains: []string{"*"}, Routes: []Route{{
		Forward: &Forward{Targets: []Target{{Cluster: "c"}}}, Fault: &Fault{Delay: time.Second, DelayShare: 1},
		CORS: &CORS{Origins: []StringMatch{{Kind: Exact, Value: "*"}}}, Origin: Origin{Kind: "VirtualService"},
	}}}}}
	marshal := func() string {
		out, problems := config.Envoy()
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	first := marshal()
	for range 10 {
		if marshal() != first {
			t.Fatal("other bytes")
		}
	}
}

// TestTheHostOfADestination: the only destination's counts before the route's; one of several, the others of which weigh nothing, after it.
func TestTheHostOfADestination(t *testing.T) {
	alone := []Target{{Cluster: "a", Host: "target.example.com", Weight: 1}}
	for _, c := range []struct {
		targets         []Target
		authority, want string
	}{
		{alone, "", "target.example.com"},
		{alone, "route.example.com", "target.example.com"},
		{append(alone, Target{Cluster: "b"}), "", "target.example.com"},
		{append(alone, Target{Cluster: "b"}), "route.example.com", "route.example.com"},
	} {
		config := Config{Name: "x", Hosts: []VirtualHost{{Name: "x", Domains: []string{"*"}, Routes: []Route{{
			Forward: &Forward{Targets: c.targets, Rewrite: Rewrite{Authority: c.authority}},
		}}}}}
		out, problems := config.Envoy()
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if got := out.VirtualHosts[0].Routes[0].GetRoute().GetHostRewriteLiteral(); got != c.want {
			t.Errorf("%d targets, authority %q: %q, want %q", len(c.targets), c.authority, got, c.want)
		}
	}
}
