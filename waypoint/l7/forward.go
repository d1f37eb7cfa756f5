package l7

import (
	"regexp"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/match"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/mutate"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// forward is a compiled RouteAction.
type forward struct {
	cluster  string
	weighted []weightedEntry
	total    uint64
	notFound int // the status when there is no such cluster

	pathRewrite
	host       hostRewrite
	appendHost bool // x-forwarded-host

	timeout    time.Duration
	idle       time.Duration
	idleSet    bool
	maxStream  *maxStream
	maxGRPC    *time.Duration
	grpcOffset time.Duration
	retry      *Retry // never nil
	mirrors    []mirrorPolicy
	hash       []hashPolicy
	upgrades   map[string]upgrade
}

// maxStream is max_stream_duration.
type maxStream struct {
	limit      time.Duration
	grpcMax    *time.Duration
	grpcOffset time.Duration
}

type upgrade struct{ enabled, tcp bool }

// weightedEntry is one of several clusters, with what is special about it.
type weightedEntry struct {
	cluster           string
	weight            uint64
	host              string
	request, response *mutate.Headers
	overrides         []override // the effective ones: with the route's
}

// pathRewrite is what becomes of the path.
type pathRewrite struct {
	prefix  string
	regex   *regexp.Regexp
	replace string // in Go's syntax
}

type hostRewrite struct {
	literal, header string
	auto            bool
}

// mirrorPolicy is a compiled RequestMirrorPolicy.
type mirrorPolicy struct {
	cluster  string
	chance   fraction
	noSuffix bool
}

func compileMirrors(ps []*routev3.RouteAction_RequestMirrorPolicy) ([]mirrorPolicy, error) {
	var out []mirrorPolicy
	for i, p := range ps {
		if p.GetCluster() == "" {
			return nil, strict.AtIndex(strict.Errorf("cluster", "is required"), "request_mirror_policies", i)
		}
		m := mirrorPolicy{cluster: p.GetCluster(), chance: always, noSuffix: p.GetDisableShadowHostSuffixAppend()}
		if f := p.GetRuntimeFraction(); f != nil {
			m.chance = fractionOf(f.GetDefaultValue())
		}
		out = append(out, m)
	}
	return out, nil
}

func compileForward(p *routev3.RouteAction, rt *Route, in *level) (*forward, error) {
	f := &forward{
		cluster: p.GetCluster(), timeout: duration(p.GetTimeout(), 15*time.Second), appendHost: p.GetAppendXForwardedHost(),
		idle: duration(p.GetIdleTimeout(), 0), idleSet: p.GetIdleTimeout() != nil, notFound: 503, retry: in.retry,
		grpcOffset: duration(p.GetGrpcTimeoutOffset(), 0), //nolint:staticcheck // deprecated, and still sent
	}
	switch p.GetClusterNotFoundResponseCode() {
	case routev3.RouteAction_NOT_FOUND:
		f.notFound = 404
	case routev3.RouteAction_INTERNAL_SERVER_ERROR:
		f.notFound = 500
	}
	if g := p.GetMaxGrpcTimeout(); g != nil { //nolint:staticcheck // deprecated, and still sent
		d := g.AsDuration()
		f.maxGRPC = &d
	}
	if m := p.GetMaxStreamDuration(); m != nil {
		f.maxStream = &maxStream{limit: duration(m.GetMaxStreamDuration(), -1), grpcOffset: duration(m.GetGrpcTimeoutHeaderOffset(), 0)}
		if g := m.GetGrpcTimeoutHeaderMax(); g != nil {
			d := g.AsDuration()
			f.maxStream.grpcMax = &d
		}
	}
	if err := f.destinations(p, rt); err != nil {
		return nil, err
	}
	if err := f.rewrites(p); err != nil {
		return nil, err
	}
	var err error
	if f.mirrors, err = compileMirrors(p.GetRequestMirrorPolicies()); err != nil {
		return nil, err
	}
	if len(f.mirrors) == 0 {
		f.mirrors = in.mirrors
	}
	if f.hash, err = compileHash(p.GetHashPolicy()); err != nil {
		return nil, err
	}
	if rp := p.GetRetryPolicy(); rp != nil {
		if f.retry, err = compileRetry(rp); err != nil {
			return nil, strict.At(err, "retry_policy")
		}
	}
	if f.retry == nil {
		f.retry = &Retry{NumRetries: 1, Base: 25 * time.Millisecond, Max: 250 * time.Millisecond, HostAttempts: 1}
	}
	f.upgrades = map[string]upgrade{}
	for i, u := range p.GetUpgradeConfigs() {
		name := strings.ToLower(u.GetUpgradeType())
		if u.GetConnectConfig() != nil && name != "connect" {
			return nil, strict.AtIndex(strict.Errorf("connect_config", "is for CONNECT only"), "upgrade_configs", i)
		}
		f.upgrades[name] = upgrade{enabled: orTrue(u.GetEnabled()), tcp: u.GetConnectConfig() != nil}
	}
	return f, nil
}

func (f *forward) destinations(p *routev3.RouteAction, rt *Route) error {
	switch p.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		if f.cluster == "" {
			return strict.Errorf("cluster", "is required")
		}
		return nil
	case *routev3.RouteAction_WeightedClusters:
	default:
		return strict.Errorf("cluster_specifier", "is required")
	}
	for i, w := range p.GetWeightedClusters().GetClusters() {
		e := weightedEntry{cluster: w.GetName(), weight: uint64(w.GetWeight().GetValue()), host: w.GetHostRewriteLiteral()}
		err := e.compile(w, rt)
		if err == nil && e.cluster == "" {
			err = strict.Errorf("name", "is required")
		}
		if err != nil {
			return strict.At(strict.AtIndex(err, "clusters", i), "weighted_clusters")
		}
		f.weighted = append(f.weighted, e)
		f.total += e.weight
	}
	if f.total == 0 {
		return strict.Errorf("weighted_clusters", "the sum of the weights must be greater than 0")
	}
	if t := p.GetWeightedClusters().GetTotalWeight(); t != nil { //nolint:staticcheck // deprecated, and still sent
		if uint64(t.GetValue()) != f.total {
			return strict.Errorf("weighted_clusters.total_weight", "is %d, the weights sum up to %d", t.GetValue(), f.total)
		}
	}
	return nil
}

func (e *weightedEntry) compile(w *routev3.WeightedCluster_ClusterWeight, rt *Route) error {
	var err error
	if e.request, err = mutate.CompileHeaders("request", w.GetRequestHeadersToAdd(), w.GetRequestHeadersToRemove()); err != nil {
		return err
	}
	if e.response, err = mutate.CompileHeaders("response", w.GetResponseHeadersToAdd(), w.GetResponseHeadersToRemove()); err != nil {
		return err
	}
	own, err := compileOverrides(w.GetTypedPerFilterConfig())
	e.overrides = mergeOverrides(own, rt.overrides)
	return err
}

// pick draws a weighted cluster; nil when there is but one.
func (f *forward) pick(random uint64) *weightedEntry {
	if f.total == 0 {
		return nil
	}
	at := random % f.total
	for i := range f.weighted {
		if w := &f.weighted[i]; at < w.weight {
			return w
		}
		at -= f.weighted[i].weight
	}
	return &f.weighted[len(f.weighted)-1]
}

func (f *forward) rewrites(p *routev3.RouteAction) error {
	var err error
	if f.pathRewrite, err = compilePathRewrite(p.GetPrefixRewrite(), p.GetRegexRewrite()); err != nil {
		return err
	}
	switch k := p.GetHostRewriteSpecifier().(type) {
	case *routev3.RouteAction_HostRewriteLiteral:
		f.host.literal = k.HostRewriteLiteral
	case *routev3.RouteAction_HostRewriteHeader:
		f.host.header = strings.ToLower(k.HostRewriteHeader)
	case *routev3.RouteAction_AutoHostRewrite:
		f.host.auto = k.AutoHostRewrite.GetValue()
	}
	return nil
}

func compilePathRewrite(prefix string, re *matcherv3.RegexMatchAndSubstitute) (pathRewrite, error) {
	w := pathRewrite{prefix: prefix}
	if re == nil {
		return w, nil
	}
	if prefix != "" {
		return w, strict.Errorf("regex_rewrite", "and prefix_rewrite are both set")
	}
	var err error
	w.regex, w.replace, err = compileSubstitute(re)
	return w, strict.At(err, "regex_rewrite")
}

func compileSubstitute(p *matcherv3.RegexMatchAndSubstitute) (*regexp.Regexp, string, error) {
	re, err := regexp.Compile(p.GetPattern().GetRegex())
	if err != nil {
		return nil, "", strict.Errorf("pattern.regex", "%v", err)
	}
	if _, err := match.FullRegex(p.GetPattern().GetRegex()); err != nil {
		return nil, "", strict.At(err, "pattern")
	}
	// RE2's \1 is Go's ${1}.
	var b strings.Builder
	s := p.GetSubstitution()
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '$':
			b.WriteString("$$")
		case s[i] != '\\':
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == '\\':
			b.WriteByte('\\')
			i++
		case i+1 < len(s) && '0' <= s[i+1] && s[i+1] <= '9':
			if int(s[i+1]-'0') > re.NumSubexp() {
				return nil, "", strict.Errorf("substitution", "%q refers to a group that the pattern does not have", s)
			}
			b.WriteString("${" + s[i+1:i+2] + "}")
			i++
		default:
			return nil, "", strict.Errorf("substitution", "%q has a stray backslash", s)
		}
	}
	return re, b.String(), nil
}
