package why

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
	"github.com/isthmus-mesh/isthmus/pkg/authz"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// deniedBy explains a refusal by a rule that matches.
func (w *walk) deniedBy(local *l4.Workload, verdict authz.Verdict, conn authz.Conn) Verdict {
	p := w.m.State.Policy(verdict.Policy)
	ref, name := w.policyRef(local, p, verdict.Rule, conn)
	switch {
	case ref.Kind == "PeerAuthentication":
		v := denied(w.m.enrolRemedy(w.from.pod), "%s requires mutual TLS of the mesh (STRICT), and the connection from %s comes as plain TCP", name, w.from.title).about(ref)
		if w.from.pod != nil {
			text, where, in := w.m.enrolment(w.from.pod)
			if !in {
				v.Cause += ": the client is not in the mesh (" + strings.TrimPrefix(text, "no: ") + ")"
				v = v.about(where)
			}
		}
		return v
	case name == "istio.io/waypoint-failure-mode":
		return denied("reach the service by its address, through its waypoint",
			"only the waypoint may connect to %s/%s (istio.io/waypoint-failure-mode), and %s is not the waypoint", local.Namespace, local.Name, principal(conn.Identity)).about(ref)
	}
	text := ""
	if ap := w.m.authorizationPolicy(ref.Namespace, ref.Name); ap != nil {
		if i := ruleIndex(ref.Field); i >= 0 && i < len(ap.Spec.GetRules()) {
			text = " (" + ruleText(ap.Spec.GetRules()[i]) + ")"
		}
	}
	v := denied("change the rule, or connect with another identity", "AuthorizationPolicy %s denies it: %s%s matches %s", name, orPolicy(ref.Field), text, w.client(conn)).about(ref)
	return w.waypointsIdentity(v, conn)
}

func orPolicy(field string) string {
	if field == "" {
		return "the policy"
	}
	return field
}

// client is how policies see who connects.
func (w *walk) client(conn authz.Conn) string {
	if conn.Identity.IsZero() {
		return "a client without an identity, from " + conn.Source.Addr().String()
	}
	return principal(conn.Identity)
}

// waypointsIdentity adds that policies at a ztunnel see the waypoint, not the client.
func (w *walk) waypointsIdentity(v Verdict, conn authz.Conn) Verdict {
	if w.l7 && conn.Identity != w.from.identity {
		v.Cause += fmt.Sprintf("; the destination's ztunnel sees the identity of the waypoint (%s), not that of the client (%s)",
			conn.Identity.Principal(), orNone(w.from.identity.Principal(), w.from.identity.IsZero()))
		v.Remedy = "let the policy name the waypoint's identity, or attach it to the service by targetRefs, so that the waypoint, which knows the client, enforces it"
	}
	return v
}

func orNone(s string, none bool) string {
	if none {
		return "none"
	}
	return s
}

func ruleIndex(field string) int {
	at := strings.LastIndex(field, "rules[")
	if at < 0 {
		return -1
	}
	i, err := strconv.Atoi(strings.TrimSuffix(field[at+len("rules["):], "]"))
	if err != nil {
		return -1
	}
	return i
}

// noneAllows explains a refusal because there are ALLOW policies and none matches.
func (w *walk) noneAllows(steps []authz.Step, conn authz.Conn) Verdict {
	v := denied("add a rule that allows "+w.client(conn), "ALLOW policies exist, and none of their rules allows %s", w.client(conn))
	var why []string
	for _, s := range steps {
		if s.Policy.DryRun() || s.Policy.Action() == security.Action_DENY {
			continue
		}
		ns, name, _ := strings.Cut(s.Policy.Key(), "/")
		ap := w.m.authorizationPolicy(ns, name)
		if ap == nil {
			continue
		}
		text, field := w.whyNot(ap, conn.Destination.Port())
		why = append(why, ns+"/"+name+": "+text)
		v = v.about(w.m.World.Of(ap, field))
		if len(w.m.Mesh.UnsentRules(ap)) > 0 {
			v.Remedy = "attach the policy to the service or waypoint by targetRefs: only a waypoint enforces rules with HTTP attributes"
		}
	}
	v.Cause += ": " + strings.Join(why, "; ")
	return w.waypointsIdentity(v, conn)
}

// whyNot says what an ALLOW policy would need at ztunnel.
func (w *walk) whyNot(ap *securityv1.AuthorizationPolicy, port uint16) (text, field string) {
	if len(ap.Spec.GetRules()) == 0 {
		return "it has no rules, so it allows nothing", "spec"
	}
	var out []string
	unsent := w.m.Mesh.UnsentRules(ap)
	for i, r := range ap.Spec.GetRules() {
		if slices.Contains(unsent, i) {
			out = append(out, fmt.Sprintf("rule %d (%s) has HTTP attributes, which ztunnel cannot see, so it allows nothing there", i, ruleText(r)))
			field = first(field, fmt.Sprintf("spec.rules[%d]", i))
			continue
		}
		out = append(out, fmt.Sprintf("rule %d takes only %s%s", i, ruleText(r), portsText(r, port, "the pod's")))
		field = first(field, fmt.Sprintf("spec.rules[%d]", i))
	}
	return strings.Join(out, ", "), field
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// ruleText is a rule in words: all parts must hold, and of alternatives one.
func ruleText(r *securityapi.Rule) string {
	var from, to, out []string
	for _, f := range r.GetFrom() {
		from = append(from, fieldsText(f.GetSource()))
	}
	for _, t := range r.GetTo() {
		to = append(to, fieldsText(t.GetOperation()))
	}
	for _, alternatives := range [][]string{from, to} {
		if text := strings.Join(alternatives, " or "); len(alternatives) > 1 {
			out = append(out, "("+text+")")
		} else if text != "" {
			out = append(out, text)
		}
	}
	for _, c := range r.GetWhen() {
		if len(c.GetValues()) > 0 {
			out = append(out, "when "+c.GetKey()+" "+strings.Join(c.GetValues(), ","))
		}
		if len(c.GetNotValues()) > 0 {
			out = append(out, "when not "+c.GetKey()+" "+strings.Join(c.GetNotValues(), ","))
		}
	}
	if len(out) == 0 {
		return "anything"
	}
	return strings.Join(out, " ")
}

// fieldsText is a Source or Operation in words: every list that has values, by the name that people write, so that none is left out.
func fieldsText(m proto.Message) string {
	var out []string
	fields := m.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		values := m.ProtoReflect().Get(fields.Get(i)).List()
		if values.Len() == 0 {
			continue
		}
		name := fields.Get(i).JSONName()
		if positive, ok := strings.CutPrefix(name, "not"); ok {
			name = "not " + strings.ToLower(positive[:1]) + positive[1:]
		}
		var texts []string
		for j := range values.Len() {
			texts = append(texts, values.Get(j).String())
		}
		out = append(out, name+" "+strings.Join(texts, ","))
	}
	return strings.Join(out, " ")
}

// dryRun tells of a rule that would decide if its policy were in force.
func (w *walk) dryRun(ns, name, action string, rule int) {
	ap := w.m.authorizationPolicy(ns, name)
	if ap == nil {
		return
	}
	w.warn(w.m.World.Of(ap, "metadata.annotations[istio.io/dry-run]"), "take the annotation istio.io/dry-run away when the policy is to be in force",
		"AuthorizationPolicy %s/%s is a dry run: rule %d (%s) matches, and nothing is done about it but metrics and logs", ns, name, rule, action)
}

// l7Policy reads the name that a rule has at a waypoint or gateway.
func l7Policy(name string) (ns, policy string, rule int, ok bool) {
	rest, ok := strings.CutPrefix(name, "ns[")
	if !ok {
		return "", "", 0, false
	}
	ns, rest, _ = strings.Cut(rest, "]-policy[")
	policy, rest, _ = strings.Cut(rest, "]-rule[")
	rule, err := strconv.Atoi(strings.TrimSuffix(rest, "]"))
	return ns, policy, rule, err == nil
}
