package why

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/pilot/simulate"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// station is a proxy that looks at requests, while a question passes it.
type station struct {
	w     *walk
	proxy *Proxy
	// self is the workload of the proxy; its identity is what others see from here on.
	self *l4.Workload
	name string
}

// chance is what the proxies draw: the same in every run, and over all its values evenly spread.
type chance struct {
	at    uint64
	first bool
}

// Uint64 gives numbers that are evenly spread modulo 100 and modulo a million, in the j-th of [draws] runs.
func (c *chance) Uint64() uint64 {
	if !c.first {
		c.first = true
		return c.at*10_000 + c.at
	}
	c.at = (c.at*37 + 13) % draws
	return c.at*10_000 + c.at
}

// request is the one that is asked about.
func (w *walk) request(host string) *httpmsg.Head {
	h := &httpmsg.Head{}
	h.Reset()
	h.Version, h.Method, h.Path, h.Scheme, h.Authority = httpmsg.HTTP11, "GET", "/", "http", host
	if w.q.Method != "" {
		h.Method = strings.ToUpper(w.q.Method)
	}
	if w.q.Path != "" {
		h.Path = w.q.Path
	}
	for _, line := range w.q.Headers {
		name, value, _ := strings.Cut(line, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch name {
		case "host", "":
			if strings.HasPrefix(strings.ToLower(line), ":authority:") {
				value = strings.TrimSpace(line[len(":authority:"):])
			}
			h.Authority = value
		default:
			h.Header.Add(name, value)
		}
	}
	if strings.HasPrefix(h.Header.Value("content-type"), "application/grpc") {
		h.Version = httpmsg.HTTP2
	}
	return h
}

// sniffed is what the first bytes show.
func (w *walk) sniffed(head *httpmsg.Head) l7.Protocol {
	if head.Version == httpmsg.HTTP2 {
		return l7.ProtocolHTTP2
	}
	return l7.ProtocolHTTP1
}

// serve asks the proxy about a connection at one of its listeners, and about the request on it.
func (s *station) serve(h *Hop, listener string, conn l7.Conn, host string) path {
	w, cfg := s.w, s.proxy.Config
	head := w.request(host)
	sniffed := l7.ProtocolUnknown
	if cfg.NeedsSniff(listener, &conn) {
		sniffed = w.sniffed(head)
	}
	chain, ok := cfg.Chain(listener, &conn, sniffed)
	if !ok {
		return h.end(s.noChain(listener, &conn))
	}
	if v := s.serverCredentials(chain); v != nil {
		return h.end(*v)
	}
	if chain.TLS != nil {
		conn.TLS = true
		h.add("TLS", "ended here, for "+orNone(conn.SNI, conn.SNI == "")+" (server name)", nil)
	}
	s.telemetryFact(h, chain)
	steps := chain.Explain(&conn)
	if details, ok := chain.Admit(&conn); !ok {
		s.steps(h, steps)
		return h.end(s.deniedConnection(chain, steps, details, &conn))
	}
	if chain.HTTP == nil {
		s.steps(h, steps)
		return s.tcp(h, chain, &conn)
	}
	if w.q.Method == "" {
		w.notes = addOnce(w.notes, "a request was not named: GET / is taken; name METHOD and PATH for another")
	}
	return s.http(h, chain, &conn, head)
}

// noChain explains why no chain takes a connection.
func (s *station) noChain(listener string, conn *l7.Conn) Verdict {
	v := broken("", "%s has nothing at %s that takes the connection", s.name, conn.Destination)
	if l := s.proxy.Config.Listeners[listener]; l == nil {
		v.Cause = fmt.Sprintf("%s has no listener for %s", s.name, conn.Destination)
	}
	if conn.Hello {
		v.Cause += fmt.Sprintf(" by TLS for the name %s", orNone(fmt.Sprintf("%q", conn.SNI), conn.SNI == ""))
		v.Remedy = "ask for a name that is served (--sni), or add it to the hosts"
		v = s.classicMisses(v, conn.SNI, true)
	}
	v = s.connectionMisses(v, conn.SNI, conn.Hello)
	if len(s.proxy.Refused) > 0 {
		v.Cause += "; it refuses its configuration: " + strings.Join(s.proxy.Refused, "; ")
	}
	if len(v.Refs) > 0 {
		return v
	}
	return s.aboutGateway(v)
}

func (s *station) aboutGateway(v Verdict) Verdict {
	for _, gw := range s.classicGateways() {
		v = v.about(s.w.m.World.Of(gw, "spec.servers"))
	}
	if s.proxy.Gateway == "" || s.w.m.objects[key("Gateway", s.proxy.Namespace, s.proxy.Gateway)] == nil {
		return v
	}
	return v.about(s.w.m.World.Ref("Gateway", s.proxy.Namespace, s.proxy.Gateway, "spec.listeners"))
}

// outcome is one of the ways in which a request fares at the proxy.
type outcome struct {
	d     l7.Decision
	req   *l7.Request
	steps []l7.Step
	count int
}

// http asks the proxy about the request, as often as chance may decide otherwise.
func (s *station) http(h *Hop, chain *l7.Chain, conn *l7.Conn, head *httpmsg.Head) path {
	w := s.w
	w.http = true
	w.asked = append(w.asked, s)
	var outcomes []*outcome
	for j := range uint64(draws) {
		o := &outcome{count: 1, req: &l7.Request{}}
		own := *head
		own.Header = httpmsg.Header{}
		own.Header.CopyFrom(&head.Header)
		o.req.Begin(&own, conn)
		o.steps = s.proxy.Config.Explain(&o.d, chain, o.req, time.Unix(1_800_000_000, 0), &chance{at: j})
		same := slices.IndexFunc(outcomes, func(have *outcome) bool { return sameOutcome(&have.d, &o.d) })
		if same >= 0 {
			outcomes[same].count++
		} else {
			outcomes = append(outcomes, o)
		}
	}
	h.add("request", fmt.Sprintf("%s %s for %s", head.Method, head.Path, head.Authority), nil)
	var branches []branch
	for _, o := range outcomes {
		next := h.fork()
		w.routeFact(next, o)
		s.steps(next, o.steps)
		branches = append(branches, branch{o.count, s.decided(next, chain, conn, o)})
	}
	return worst(branches)
}

func sameOutcome(a, b *l7.Decision) bool {
	if a.Route != b.Route || a.ClusterName != b.ClusterName || a.Delay != b.Delay || (a.Reply == nil) != (b.Reply == nil) {
		return false
	}
	return a.Reply == nil || a.Reply.Status == b.Reply.Status && a.Reply.Details == b.Reply.Details
}

// steps are what filters say.
func (s *station) steps(h *Hop, steps []l7.Step) {
	for _, step := range steps {
		switch {
		case step.RBAC != nil:
			s.rbacFact(h, step)
		case step.Limit != nil:
			s.limitFacts(h, step)
		case step.Asks != "":
			s.askedFact(h, step.Asks)
		case step.Denied != "":
			h.add("token", "refused: "+step.Denied, nil)
		default:
			h.add("token", "accepted, or none needed so far", nil)
		}
	}
}

func (s *station) rbacFact(h *Hop, step l7.Step) {
	v := step.RBAC
	action := v.Action
	if step.DryRun {
		action = "dry run of " + action
	}
	if v.By == "" {
		for _, name := range policyObjects(v.Policies) {
			ns, policy, _ := strings.Cut(name, "/")
			h.add("policy", action+" "+name+": no rule matches", s.w.m.World.Ref("AuthorizationPolicy", ns, policy, ""))
		}
		return
	}
	ns, policy, rule, ok := l7Policy(v.By)
	if !ok {
		h.add("policy", action+" "+v.By+" matches", nil)
		return
	}
	if step.DryRun {
		s.w.dryRun(ns, policy, v.Action, rule)
	}
	h.add("policy", fmt.Sprintf("%s %s/%s: rule %d matches", action, ns, policy, rule),
		s.w.m.World.Ref("AuthorizationPolicy", ns, policy, fmt.Sprintf("spec.rules[%d]", rule)))
}

// policyObjects are the objects of rules, namespace/name each.
func policyObjects(rules []string) (out []string) {
	for _, name := range rules {
		if ns, policy, _, ok := l7Policy(name); ok {
			out = addOnce(out, ns+"/"+policy)
		}
	}
	return out
}

// decided goes on from a decision.
func (s *station) decided(h *Hop, chain *l7.Chain, conn *l7.Conn, o *outcome) path {
	d := &o.d
	if d.Delay > 0 {
		h.add("fault", "a delay of "+d.Delay.String()+" is injected", s.w.routeRef(d.Route, "fault.delay"))
	}
	if d.Reply != nil {
		v := s.replied(chain, o, conn)
		h.Next = fmt.Sprintf("answers %d itself (%s)", d.Reply.Status, d.Reply.Details)
		return h.end(v)
	}
	var asks []string
	for _, step := range o.steps {
		if step.Asks != "" {
			asks = append(asks, step.Asks)
		}
	}
	if v := s.silent(asks); v != nil {
		h.Next = "answers 403 itself: the authorizer cannot be asked"
		return h.end(*v)
	}
	s.weights(h, d)
	if by := d.SessionBy(); by != "" {
		h.add("session", "stays with the endpoint that answers first, by "+by+": who does not send that back gets any", nil)
	}
	return s.cluster(h, d.ClusterName, d.Cluster, d.Endpoints, conn)
}

// weights are how a route shares out its requests.
func (s *station) weights(h *Hop, d *l7.Decision) {
	targets := d.Route.Targets()
	if len(targets) < 2 {
		return
	}
	total := uint32(0)
	for _, t := range targets {
		total += t.Weight
	}
	var parts []string
	for _, t := range targets {
		parts = append(parts, fmt.Sprintf("%s %d %%", t.Cluster, t.Weight*100/max(total, 1)))
	}
	h.add("weights", strings.Join(parts, ", "), nil)
}

// tcp asks the proxy about bytes.
func (s *station) tcp(h *Hop, chain *l7.Chain, conn *l7.Conn) path {
	w := s.w
	if w.q.Method != "" {
		w.warn(w.portRef(), "name the port http-…, or set its appProtocol", "%s takes the port for TCP: it does not look at requests, and neither routes nor policies for HTTP have an effect", s.name)
	}
	h.add("protocol", "TCP: requests are not looked at", w.portRef())
	var asks []string
	for _, f := range chain.Asks(conn) {
		s.askedFact(h, f.Cluster)
		asks = append(asks, f.Cluster)
	}
	if v := s.silent(asks); v != nil {
		v.Status = 0
		return h.end(*v)
	}
	s.untaken()
	w.untakenRoutes(chain, conn)
	type way struct {
		d     l7.TCPDecision
		count int
	}
	ways := map[string]*way{}
	var order []string
	for j := range uint64(draws) {
		d := s.proxy.Config.DecideTCP(chain, conn, &chance{at: j})
		if ways[d.ClusterName] == nil {
			ways[d.ClusterName] = &way{d: d}
			order = append(order, d.ClusterName)
		}
		ways[d.ClusterName].count++
	}
	var branches []branch
	for _, name := range order {
		next := h.fork()
		d := ways[name].d
		rule, text := s.connectionRef(chain, name)
		if rule != nil {
			next.add("route", text, rule)
		}
		if d.Cluster == nil {
			v := s.noBackend(chain, rule, s.noCluster(name, nil))
			branches = append(branches, branch{ways[name].count, next.end(v)})
			continue
		}
		branches = append(branches, branch{ways[name].count, s.cluster(next, name, d.Cluster, d.Endpoints, conn)})
	}
	return worst(branches)
}

// portRef is where the port that is asked for is written.
func (w *walk) portRef() *Ref {
	if w.to == nil || w.to.service == nil {
		return nil
	}
	s := w.m.service(w.to.service)
	for i, p := range s.Proto.Ports {
		if uint16(p.ServicePort) == w.to.port {
			return w.m.serviceRef(s, w.portField(s, i))
		}
	}
	return nil
}

// cluster goes on to each of the endpoints.
func (s *station) cluster(h *Hop, name string, c *l7.Cluster, endpoints *l7.Endpoints, conn *l7.Conn) path {
	h.add("cluster", name, nil)
	if s.proxy.Kind == simulate.Router {
		if to := parseCluster(name); to.ok {
			if svc := s.w.m.service(s.w.m.lookup(to.host, s.proxy.Namespace)); svc != nil && !slices.Contains(s.w.backends, svc) {
				s.w.backends = append(s.w.backends, svc)
			}
		}
	}
	switch {
	case c.Refused != "":
		return h.end(s.refused(c))
	case c.Discovery == l7.DiscoveryOriginalDst && conn.Destination.IsValid():
		h.add("endpoint", "the address that was asked for: "+conn.Destination.String(), nil)
		return s.toAddress(h, conn.Destination, "", conn)
	case endpoints == nil || len(endpoints.List) == 0:
		return h.end(s.emptyCluster(name))
	}
	var names []string
	var branches []branch
	for _, e := range endpoints.List {
		names = append(names, showEndpoint(e))
	}
	if len(names) > 6 {
		names = append(names[:6], fmt.Sprintf("and %d more", len(endpoints.List)-6))
	}
	h.add("endpoints", strings.Join(names, ", "), nil)
	s.priorities(h, name, endpoints)
	s.ownNode(h, name)
	for i, e := range mayBe(endpoints) {
		if i == draws {
			s.w.notes = addOnce(s.w.notes, fmt.Sprintf("cluster %s has %d endpoints; the first %d were looked at", name, len(endpoints.List), draws))
			break
		}
		if e.Health == l7.Unhealthy && len(endpoints.List) > 1 {
			continue
		}
		next := h.fork()
		if v := s.upstream(next, c, e); v != nil {
			branches = append(branches, branch{int(e.Weight), next.end(*v)})
			continue
		}
		branches = append(branches, branch{int(e.Weight), s.endpoint(next, e, conn)})
	}
	if len(branches) == 0 {
		return h.end(s.emptyCluster(name))
	}
	return worst(branches)
}

func showEndpoint(e *l7.Endpoint) string {
	name, _, _ := strings.Cut(e.Workload, ";")
	at := e.Address.String()
	if !e.Address.IsValid() {
		at = fmt.Sprintf("%s:%d", e.Host, e.Port)
	}
	if name != "" {
		at = name + " " + at
	}
	if e.Health != l7.Healthy {
		at += " (not healthy)"
	}
	return at
}

// endpoint goes to one host.
func (s *station) endpoint(h *Hop, e *l7.Endpoint, conn *l7.Conn) path {
	switch {
	case e.Host != "":
		return s.w.hostname(h, e.Host, e.Port)
	case e.Waypoint.IsValid():
		return s.throughWaypoint(h, e)
	case e.Internal != "":
		return s.toAddress(h, e.Address, e.Internal, conn)
	}
	return s.toAddress(h, e.Address, "", conn)
}

// identity is what others see of the proxy.
func (s *station) identity() spiffe.ID {
	if s.self == nil {
		return spiffe.ID{}
	}
	return s.self.Identity()
}

func (s *station) address() netip.Addr {
	if s.self == nil || len(s.self.Addresses) == 0 {
		return outsideAddress()
	}
	return s.self.Addresses[0]
}

// toAddress connects to a workload, by a tunnel if internal names the listener for that.
func (s *station) toAddress(h *Hop, at netip.AddrPort, internal string, conn *l7.Conn) path {
	w := s.w
	network := w.m.Mesh.Settings().Network
	dest := w.m.State.WorkloadByIP(network, at.Addr())
	tunnelled := internal != "" || conn.Authority != "" && dest != nil && dest.HBONE
	port := at.Port()
	if tunnelled {
		port = hbonePort
	}
	from := end{w.m.podOf(s.self), s.address()}
	if v := w.blockedVerdict(h, from, end{w.m.podOf(dest), at.Addr()}, port, at.Port()); v != nil {
		return h.end(*v)
	}
	if dest == nil {
		h.Next = "TCP to " + at.String()
		return h.end(Verdict{Outcome: Allowed, Reached: []string{at.String()}, Cause: at.String() + " is no workload of the mesh: the proxy connects to it in plain TCP or as its DestinationRule says"})
	}
	if tunnelled {
		h.add("protocol", "HBONE (mutual TLS) as "+s.identity().String(), nil)
		h.Next = "HBONE to " + netip.AddrPortFrom(at.Addr(), hbonePort).String()
		return h.then(w.tunnel(dest, at, at.String(), arrival{s.address(), s.identity(), w.m.podOf(s.self)}))
	}
	text, ref := "the endpoint is not enrolled", w.m.workloadRef(dest, "")
	if p := w.m.podOf(dest); p != nil {
		text, ref, _ = w.m.enrolment(p)
		text = "the endpoint's enrolment: " + text
	}
	h.add("protocol", "plain TCP: "+text, ref)
	h.Next = "plain TCP to " + at.String()
	if dest.HBONE {
		return h.then(w.plain(dest, at, arrival{address: s.address(), pod: w.m.podOf(s.self)}))
	}
	return h.then(w.bare(dest, at))
}
