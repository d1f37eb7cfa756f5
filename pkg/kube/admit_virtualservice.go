package kube

import (
	"fmt"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
)

const meshGateway = "mesh"

func (c *checker) virtualService(spec *networkingapi.VirtualService) {
	delegates := slices.ContainsFunc(spec.GetHttp(), func(r *networkingapi.HTTPRoute) bool { return r.GetDelegate() != nil })
	mesh := len(spec.GetGateways()) == 0 || slices.Contains(spec.GetGateways(), meshGateway)
	seen := map[string]bool{}
	for i, host := range spec.GetHosts() {
		field := fmt.Sprintf("spec.hosts[%d]", i)
		c.routedHost(field, host)
		if host == "*" && mesh {
			c.bad(field, "\"*\" cannot be used inside the mesh: name hosts, or gateways other than mesh")
		}
		if seen[host] {
			c.bad(field, "%q is used twice", host)
		}
		seen[host] = true
	}
	if len(spec.GetHosts()) == 0 && (delegates || len(spec.GetTcp())+len(spec.GetTls())+len(spec.GetGateways()) > 0) {
		c.bad("spec.hosts", "at least one host is required, except in a VirtualService that others delegate to")
	}
	for i, name := range spec.GetGateways() {
		c.gatewayName(fmt.Sprintf("spec.gateways[%d]", i), name)
	}
	if len(spec.GetHttp())+len(spec.GetTcp())+len(spec.GetTls()) == 0 {
		c.bad("spec", "nothing is routed: add http, tls or tcp")
	}
	c.exportTo(spec.GetExportTo())
	catchAll := -1
	for i, r := range spec.GetHttp() {
		field := fmt.Sprintf("spec.http[%d]", i)
		if r == nil {
			c.bad(field, "an empty entry is not allowed")
			continue
		}
		if catchAll >= 0 {
			c.warn(field, "is never reached: spec.http[%d] takes every request before it", catchAll)
		}
		c.httpRoute(field, r)
		if catchAll < 0 && takesAll(r) {
			catchAll = i
		}
	}
	for i, r := range spec.GetTls() {
		c.tlsRoute(fmt.Sprintf("spec.tls[%d]", i), r, spec.GetHosts())
	}
	for i, r := range spec.GetTcp() {
		field := fmt.Sprintf("spec.tcp[%d]", i)
		for j, m := range r.GetMatch() {
			c.l4Match(fmt.Sprintf("%s.match[%d]", field, j), m.GetDestinationSubnets(), m.GetPort(), m.GetGateways())
		}
		c.routeDestinations(field, r.GetRoute())
	}
}

func takesAll(r *networkingapi.HTTPRoute) bool {
	if len(r.GetMatch()) == 0 {
		return true
	}
	return slices.ContainsFunc(r.GetMatch(), func(m *networkingapi.HTTPMatchRequest) bool {
		prefix, _ := m.GetUri().GetMatchType().(*networkingapi.StringMatch_Prefix)
		return (m.GetUri() == nil || prefix != nil && prefix.Prefix == "/") && m.GetMethod() == nil && m.GetAuthority() == nil && m.GetScheme() == nil &&
			len(m.GetHeaders())+len(m.GetWithoutHeaders())+len(m.GetQueryParams())+len(m.GetSourceLabels())+len(m.GetGateways()) == 0 && m.GetPort() == 0 && m.GetSourceNamespace() == ""
	})
}

func (c *checker) gatewayName(field, name string) {
	if name == meshGateway {
		return
	}
	namespace, short, both := strings.Cut(name, "/")
	if !both {
		namespace, short = ".", name
	}
	if namespace != "." {
		c.label(field, "namespace", namespace)
	}
	c.host(field, short)
}

func (c *checker) httpRoute(field string, r *networkingapi.HTTPRoute) {
	for i, m := range r.GetMatch() {
		c.httpMatch(fmt.Sprintf("%s.match[%d]", field, i), m)
	}
	c.httpAction(field, r)
	c.httpRedirect(field, r)
	c.weights(field+".route", len(r.GetRoute()), func(i int) int32 { return r.GetRoute()[i].GetWeight() })
	for i, d := range r.GetRoute() {
		at := fmt.Sprintf("%s.route[%d]", field, i)
		c.destination(at+".destination", d.GetDestination())
		c.headers(at+".headers", d.GetHeaders())
	}
	c.headers(field+".headers", r.GetHeaders())
	c.duration(field+".timeout", r.GetTimeout(), true)
	c.retries(field+".retries", r.GetRetries())
	c.fault(field+".fault", r.GetFault())
	c.cors(field+".corsPolicy", r.GetCorsPolicy())
	c.mirrors(field, r)
	if w := r.GetRewrite(); w != nil {
		switch {
		case w.GetUri() == "" && w.GetAuthority() == "" && w.GetUriRegexRewrite() == nil:
			c.bad(field+".rewrite", "nothing is rewritten: set uri, authority or uriRegexRewrite")
		case w.GetUri() != "" && w.GetUriRegexRewrite() != nil:
			c.bad(field+".rewrite", "only one of uri and uriRegexRewrite can be set")
		}
		if w.GetUriRegexRewrite() != nil {
			c.regex(field+".rewrite.uriRegexRewrite.match", w.GetUriRegexRewrite().GetMatch())
		}
	}
}

// httpAction checks that there is one thing to do with a request.
func (c *checker) httpAction(field string, r *networkingapi.HTTPRoute) {
	var actions []string
	for name, set := range map[string]bool{
		"route": len(r.GetRoute()) > 0, "redirect": r.GetRedirect() != nil, "directResponse": r.GetDirectResponse() != nil, "delegate": r.GetDelegate() != nil,
	} {
		if set {
			actions = append(actions, name)
		}
	}
	slices.Sort(actions)
	switch len(actions) {
	case 0:
		c.bad(field, "nothing is done with the request: set one of route, redirect, directResponse and delegate")
	case 1:
	default:
		c.bad(field, "only one of route, redirect, directResponse and delegate can be set, not %s", strings.Join(actions, " and "))
	}
	if r.GetRedirect() != nil || r.GetDirectResponse() != nil {
		if r.GetFault() != nil {
			c.bad(field+".fault", "a request that is answered here cannot fail: remove fault, or route it")
		}
		if r.GetRewrite() != nil {
			c.bad(field+".rewrite", "a request that is answered here is not rewritten: remove rewrite, or route it")
		}
	}
	if d := r.GetDirectResponse(); d != nil {
		c.httpStatus(field+".directResponse.status", d.GetStatus())
	}
}

func (c *checker) httpStatus(field string, status uint32) {
	if status < 200 || status > 599 {
		c.bad(field, "%d is not the status of an HTTP response: use 200 to 599", status)
	}
}

func (c *checker) httpRedirect(field string, r *networkingapi.HTTPRoute) {
	d := r.GetRedirect()
	if d == nil {
		return
	}
	field += ".redirect"
	if d.GetUri() == "" && d.GetAuthority() == "" && d.GetScheme() == "" && d.GetRedirectPort() == nil {
		c.bad(field, "leads nowhere: set uri, authority, scheme or port")
	}
	if d.GetScheme() != "" {
		c.oneOf(field+".scheme", d.GetScheme(), "http", "https")
	}
	if code := d.GetRedirectCode(); code != 0 && (code < 300 || code > 399) {
		c.bad(field+".redirectCode", "%d is not a redirection: use 301, 302, 303, 307 or 308", code)
	}
}

func (c *checker) httpMatch(field string, m *networkingapi.HTTPMatchRequest) {
	if m == nil {
		c.bad(field, "an empty entry is not allowed: use {} for one that matches everything")
		return
	}
	c.stringMatch(field+".uri", m.GetUri())
	c.stringMatch(field+".scheme", m.GetScheme())
	c.stringMatch(field+".method", m.GetMethod())
	c.stringMatch(field+".authority", m.GetAuthority())
	for name, group := range map[string]map[string]*networkingapi.StringMatch{"headers": m.GetHeaders(), "withoutHeaders": m.GetWithoutHeaders()} {
		for _, key := range sortedKeys(group) {
			// In the place of headers stand the claims of a verified token, too.
			if !strings.HasPrefix(key, "@request.auth.claims") {
				c.headerName(field+"."+name, key)
			}
			c.stringMatch(field+"."+name+"."+key, group[key])
		}
	}
	for _, key := range sortedKeys(m.GetQueryParams()) {
		if key == "" {
			c.bad(field+".queryParams", "a parameter needs a name")
		}
		c.stringMatch(field+".queryParams."+key, m.GetQueryParams()[key])
	}
	if m.GetPort() != 0 {
		c.port(field+".port", m.GetPort())
	}
	c.labels(field+".sourceLabels", m.GetSourceLabels())
	for i, name := range m.GetGateways() {
		c.gatewayName(fmt.Sprintf("%s.gateways[%d]", field, i), name)
	}
}

func (c *checker) stringMatch(field string, m *networkingapi.StringMatch) {
	switch t := m.GetMatchType().(type) {
	case *networkingapi.StringMatch_Regex:
		c.regex(field+".regex", t.Regex)
	case *networkingapi.StringMatch_Prefix:
		if t.Prefix == "" {
			c.bad(field+".prefix", "an empty prefix is not allowed: leave the match out, as it takes everything")
		}
	}
}

func (c *checker) destination(field string, d *networkingapi.Destination) {
	if d == nil {
		c.bad(field, "required")
		return
	}
	c.destinationHost(field+".host", d.GetHost())
	if d.GetHost() == "*" {
		c.bad(field+".host", "requests go to one service: a wildcard cannot be used")
	}
	if d.GetSubset() != "" {
		c.label(field+".subset", "name of a subset", d.GetSubset())
	}
	if d.GetPort() != nil {
		c.port(field+".port.number", d.GetPort().GetNumber())
	}
}

// weights are shares of the requests.
func (c *checker) weights(field string, n int, weight func(int) int32) {
	total := int64(0)
	for i := range n {
		if w := weight(i); w < 0 {
			c.bad(fmt.Sprintf("%s[%d].weight", field, i), "%d is negative: use 0 or more", w)
		} else {
			total += int64(w)
		}
	}
	if n > 1 && total == 0 {
		c.bad(field, "the weights of all destinations are 0: give at least one a weight")
	}
}

func (c *checker) headers(field string, h *networkingapi.Headers) {
	for name, ops := range map[string]*networkingapi.Headers_HeaderOperations{"request": h.GetRequest(), "response": h.GetResponse()} {
		for _, key := range sortedKeys(ops.GetSet()) {
			c.headerName(field+"."+name+".set", key)
		}
		for _, key := range sortedKeys(ops.GetAdd()) {
			c.headerName(field+"."+name+".add", key)
		}
		for i, key := range ops.GetRemove() {
			c.headerName(fmt.Sprintf("%s.%s.remove[%d]", field, name, i), key)
		}
	}
}

func (c *checker) retries(field string, r *networkingapi.HTTPRetry) {
	if r == nil {
		return
	}
	c.count(field+".attempts", r.GetAttempts())
	if r.GetAttempts() == 0 && (r.GetPerTryTimeout() != nil || r.GetRetryOn() != "") {
		c.bad(field+".attempts", "0 switches retries off: remove perTryTimeout and retryOn, or set attempts to 1 or more")
	}
	c.duration(field+".perTryTimeout", r.GetPerTryTimeout(), true)
	c.duration(field+".backoff", r.GetBackoff(), true)
	for _, on := range strings.Split(r.GetRetryOn(), ",") {
		if on = strings.TrimSpace(on); on == "" || isStatus(on) {
			continue
		}
		if !slices.Contains(retryConditions(), on) {
			c.bad(field+".retryOn", "%q is neither a condition for retries nor a status: known are %s", on, strings.Join(retryConditions(), ", "))
		}
	}
}

func isStatus(text string) bool {
	return len(text) == 3 && text[0] >= '1' && text[0] <= '5' && strings.Trim(text, "0123456789") == ""
}

func retryConditions() []string {
	return []string{
		"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited", "retriable-4xx", "refused-stream",
		"retriable-status-codes", "retriable-headers", "http3-post-connect-failure",
		"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
	}
}

func (c *checker) fault(field string, f *networkingapi.HTTPFaultInjection) {
	if f == nil {
		return
	}
	if f.GetDelay() == nil && f.GetAbort() == nil {
		c.bad(field, "nothing fails: set delay or abort")
	}
	if d := f.GetDelay(); d != nil {
		c.percent(field+".delay.percentage.value", d.GetPercentage().GetValue())
		if d.GetFixedDelay() == nil {
			c.bad(field+".delay.fixedDelay", "required: how long requests are held back")
		}
		c.duration(field+".delay.fixedDelay", d.GetFixedDelay(), false)
	}
	if a := f.GetAbort(); a != nil {
		c.percent(field+".abort.percentage.value", a.GetPercentage().GetValue())
		switch e := a.GetErrorType().(type) {
		case nil:
			c.bad(field+".abort", "requests fail with nothing: set httpStatus or grpcStatus")
		case *networkingapi.HTTPFaultInjection_Abort_HttpStatus:
			c.httpStatus(field+".abort.httpStatus", uint32(max(e.HttpStatus, 0)))
		}
	}
}

func (c *checker) cors(field string, p *networkingapi.CorsPolicy) {
	for i, origin := range p.GetAllowOrigins() {
		c.stringMatch(fmt.Sprintf("%s.allowOrigins[%d]", field, i), origin)
	}
	for i, method := range p.GetAllowMethods() {
		c.oneOf(fmt.Sprintf("%s.allowMethods[%d]", field, i), method, "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*")
	}
	for name, list := range map[string][]string{"allowHeaders": p.GetAllowHeaders(), "exposeHeaders": p.GetExposeHeaders()} {
		for i, header := range list {
			c.headerName(fmt.Sprintf("%s.%s[%d]", field, name, i), header)
		}
	}
	c.duration(field+".maxAge", p.GetMaxAge(), true)
}

func (c *checker) mirrors(field string, r *networkingapi.HTTPRoute) {
	if r.GetMirror() != nil && len(r.GetMirrors()) > 0 {
		c.bad(field+".mirror", "only one of mirror and mirrors can be set")
	}
	if r.GetMirror() != nil {
		c.destination(field+".mirror", r.GetMirror())
	}
	if r.GetMirrorPercentage() != nil {
		c.percent(field+".mirrorPercentage.value", r.GetMirrorPercentage().GetValue())
	}
	for i, m := range r.GetMirrors() {
		at := fmt.Sprintf("%s.mirrors[%d]", field, i)
		c.destination(at+".destination", m.GetDestination())
		if m.GetPercentage() != nil {
			c.percent(at+".percentage.value", m.GetPercentage().GetValue())
		}
	}
}

func (c *checker) tlsRoute(field string, r *networkingapi.TLSRoute, hosts []string) {
	if len(r.GetMatch()) == 0 {
		c.bad(field+".match", "required: name sniHosts")
	}
	for i, m := range r.GetMatch() {
		at := fmt.Sprintf("%s.match[%d]", field, i)
		if len(m.GetSniHosts()) == 0 {
			c.bad(at+".sniHosts", "at least one host is required")
		}
		for j, sni := range m.GetSniHosts() {
			f := fmt.Sprintf("%s.sniHosts[%d]", at, j)
			c.routedHost(f, sni)
			if !slices.ContainsFunc(hosts, func(h string) bool { return coversHost(h, sni) }) {
				c.bad(f, "%q is none of the VirtualService's hosts: add it to spec.hosts", sni)
			}
		}
		c.l4Match(at, m.GetDestinationSubnets(), m.GetPort(), m.GetGateways())
	}
	c.routeDestinations(field, r.GetRoute())
}

// coversHost tells whether a host name, which may start with a wildcard, stands for another one.
func coversHost(host, name string) bool {
	if suffix, ok := strings.CutPrefix(host, "*"); ok {
		return strings.HasSuffix(name, suffix)
	}
	return strings.EqualFold(host, name)
}

func (c *checker) l4Match(field string, subnets []string, port uint32, gateways []string) {
	for i, subnet := range subnets {
		c.block(fmt.Sprintf("%s.destinationSubnets[%d]", field, i), subnet)
	}
	if port != 0 {
		c.port(field+".port", port)
	}
	for i, name := range gateways {
		c.gatewayName(fmt.Sprintf("%s.gateways[%d]", field, i), name)
	}
}

func (c *checker) routeDestinations(field string, routes []*networkingapi.RouteDestination) {
	if len(routes) == 0 {
		c.bad(field+".route", "at least one destination is required")
	}
	c.weights(field+".route", len(routes), func(i int) int32 { return routes[i].GetWeight() })
	for i, d := range routes {
		c.destination(fmt.Sprintf("%s.route[%d].destination", field, i), d.GetDestination())
	}
}
