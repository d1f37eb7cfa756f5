package why

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

const hbonePort = l4.HBONEPort

// walk follows one question through the mesh.
type walk struct {
	m    *Model
	q    Question
	from *source
	to   *destination

	warnings []Finding
	notes    []string
	// l7 is whether a proxy that looks at requests was on the way.
	l7 bool
	// http is whether a proxy on the way has looked at the request.
	http bool
	// waypoint is whether a waypoint was on the way.
	waypoint bool
	// asked are the proxies that have looked at the request.
	asked []*station
	// backends are the services that gateways send to.
	backends []*ambient.Service
}

// path is one way that a connection or request may take.
type path struct {
	hops    []*Hop
	verdict Verdict
}

// end makes the path end at a hop.
func (h *Hop) end(v Verdict) path { return path{hops: []*Hop{h}, verdict: v} }

// then puts a hop before a path.
func (h *Hop) then(p path) path {
	p.hops = append([]*Hop{h}, p.hops...)
	return p
}

func broken(remedy, format string, args ...any) Verdict {
	return Verdict{Outcome: Broken, Cause: fmt.Sprintf(format, args...), Remedy: remedy}
}

func denied(remedy, format string, args ...any) Verdict {
	return Verdict{Outcome: Denied, Cause: fmt.Sprintf(format, args...), Remedy: remedy}
}

// about adds the objects that a verdict speaks of.
func (v Verdict) about(refs ...*Ref) Verdict {
	for _, r := range refs {
		if r != nil {
			v.Refs = append(v.Refs, r)
		}
	}
	return v
}

// Ask answers a question. An error is about the question itself.
func (m *Model) Ask(q Question) (*Report, error) {
	if q.Namespace == "" {
		q.Namespace = "default"
	}
	for _, h := range q.Headers {
		if !strings.Contains(h, ":") {
			return nil, fmt.Errorf("header %q is not 'name: value'", h)
		}
	}
	w := &walk{m: m, q: q}
	r := &Report{Question: q, Notes: m.World.Notes}
	var meant *unknown
	p, err := w.start()
	switch {
	case errors.As(err, &meant):
		p.verdict = broken("", "%s", meant.text)
	case err != nil:
		return nil, err
	default:
		w.look(&p)
		w.fromSidecar(&p)
	}
	r.Hops, r.Verdict, r.Warnings = p.hops, p.verdict, w.warnings
	w.reality(r)
	r.Notes = append(r.Notes[:len(r.Notes):len(r.Notes)], w.notes...)
	for _, why := range m.refused {
		r.Notes = append(r.Notes, "ztunnel refuses "+why)
	}
	return r, nil
}

// start finds out who is meant, and walks.
func (w *walk) start() (path, error) {
	var err error
	if w.from, err = w.m.source(w.q.From, w.q.Namespace); err != nil {
		return path{}, err
	}
	if w.q.Identity != "" {
		if w.from.identity, err = w.m.identity(w.q.Identity); err != nil {
			return path{}, err
		}
	}
	if w.from.gateway != "" {
		return w.throughGateway()
	}
	if w.to, err = w.m.destination(w.q.To, w.from); err != nil {
		return path{}, err
	}
	switch {
	case w.to.gateway != "":
		w.from.gateway = w.to.gateway
		return w.throughGateway()
	case w.from.workload != nil && w.from.workload.HBONE || w.q.Identity != "" && w.from.workload != nil:
		return w.outbound(), nil
	case w.q.Identity != "" && w.from.workload == nil:
		return w.asWorkload()
	}
	return w.plaintext(), nil
}

// asWorkload is for an identity without a pod: whoever has it connects from a pod of the mesh that nobody knows.
func (w *walk) asWorkload() (path, error) {
	id := w.from.identity
	w.from.title = "a pod of " + id.Namespace + " with the service account " + id.ServiceAccount
	w.from.workload = &l4.Workload{
		UID: "simulated", Name: "simulated", Namespace: id.Namespace, ServiceAccount: id.ServiceAccount, TrustDomain: id.TrustDomain,
		Addresses: []netip.Addr{w.from.address}, HBONE: true, Healthy: true, Capacity: 1, Network: w.m.Mesh.Settings().Network,
	}
	return w.outbound(), nil
}

// enrolment says whether a pod is in the mesh, and what decides that.
func (m *Model) enrolment(p *corev1.Pod) (text string, ref *Ref, in bool) {
	const annotation, label = "ambient.istio.io/redirection", "istio.io/dataplane-mode"
	if p.Labels[labelGatewayName] != "" {
		return "it is a proxy of the mesh itself", m.World.Of(p, ""), true
	}
	ns := m.namespace(p.Namespace)
	mode, set := p.Labels[label]
	where := m.World.Of(p, labelField(label))
	if !set && ns != nil {
		mode, where = ns.Labels[label], m.World.Of(ns, labelField(label))
	}
	switch {
	case p.Annotations[annotation] == "enabled":
		return "yes: " + annotation + " is enabled", where, true
	case p.Annotations[annotation] == "pending":
		return "not yet: " + annotation + " is pending", where, false
	case p.Spec.HostNetwork:
		return "no: it is in the network of its node, which the mesh never captures", m.World.Of(p, "spec.hostNetwork"), false
	case p.Annotations[sidecarStatus] != "":
		return "no: it has a sidecar", m.World.Of(p, ""), false
	case mode == "ambient":
		return "no: the label " + label + "=ambient asks for it, but the pod lacks the annotation " + annotation + "=enabled that the CNI agent of its node writes", where, false
	case set:
		return fmt.Sprintf("no: the pod's label %s is %q", label, mode), where, false
	}
	if ns == nil {
		return "no: neither the pod nor its namespace has the label " + label + "=ambient", m.World.Of(p, ""), false
	}
	return fmt.Sprintf("no: neither the pod nor Namespace %s has the label %s=ambient", p.Namespace, label), m.World.Of(ns, "metadata.labels"), false
}

// enrolRemedy is how a pod gets into the mesh.
func (m *Model) enrolRemedy(p *corev1.Pod) string {
	if p == nil {
		return "connect from a pod of the mesh, or through a gateway"
	}
	if p.Spec.HostNetwork {
		return "run the client in a network of its own (hostNetwork: false)"
	}
	if p.Annotations[sidecarStatus] != "" {
		return sidecarRemedy
	}
	own, set := p.Labels["istio.io/dataplane-mode"]
	if set && own != "ambient" {
		return fmt.Sprintf("take the pod's own label istio.io/dataplane-mode=%s away, or set it to ambient, in the template that the pod is made from", own)
	}
	if ns := m.namespace(p.Namespace); set || ns != nil && ns.Labels["istio.io/dataplane-mode"] == "ambient" {
		return fmt.Sprintf("look at the CNI agent of node %s (istioctl ztunnel-config workload; its log), then restart the pod", p.Spec.NodeName)
	}
	return fmt.Sprintf("enrol it: kubectl label namespace %s istio.io/dataplane-mode=ambient", p.Namespace)
}

// where is the node of a workload, for titles.
func where(w *l4.Workload) string {
	if w.Node == "" {
		return ""
	}
	return " on " + w.Node
}

func principal(id spiffe.ID) string {
	if id.IsZero() {
		return "none"
	}
	return id.String()
}

// look adds what is to be known besides the way itself, and lets a waypoint that should be there and is not be a fault.
func (w *walk) look(p *path) {
	w.lookAtBinding(p)
	w.lookForHidden()
	w.lookAtRoutes(p)
	w.lookAtPolicies()
	w.lookAtAttachments()
	w.lookAtRateLimits()
	w.lookForMistakes(p)
	w.lookPastWaypoint()
	p.verdict.Cause = strings.TrimSpace(p.verdict.Cause)
}

// reality is what is needed to compare the report with what runs.
func (w *walk) reality(r *Report) {
	if w.from == nil || w.to == nil {
		return
	}
	r.source, r.service, r.port, r.http = w.from.pod, w.to.service, w.to.port, w.http
	if w.from.workload != nil && w.from.workload.UID != "simulated" {
		r.ends = append(r.ends, w.from.workload)
	}
	if w.to.workload != nil {
		r.ends = append(r.ends, w.to.workload)
		r.address = netip.AddrPortFrom(w.to.address, w.to.port).String()
	}
	for _, h := range r.Hops {
		if h.local != nil {
			r.ends = append(r.ends, h.local)
		}
	}
	if s := w.to.service; s != nil {
		for _, p := range s.Ports {
			r.http = r.http || p.Service == w.to.port && isHTTP(p.Protocol)
		}
	}
}
