package gateway

import (
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// mergedListener is a listener of a Gateway or of one of its ListenerSets, judged among all of them.
type mergedListener struct {
	*gatewayv1.Listener
	// of has it, as number index.
	of    *routeParent
	index int
	// refused is why it cannot be, whatever it refers to; conflicted is whether that is because of an earlier listener.
	refused    []string
	reason     gatewayv1.ListenerConditionReason
	conflicted bool
}

// mergedParent is a Gateway or one of its ListenerSets with its listeners, judged among those of all.
type mergedParent struct {
	*routeParent
	merged []mergedListener
}

// merge judges the listeners of a Gateway, which comes first, and of the ListenerSets that it takes, by precedence. One that is refused has
// no port and no host name that a later one could be in conflict with; one that only waits for its certificate keeps them, so that nobody
// else gets what is meant for it.
func merge(v ListenerSetView, gw *gatewayv1.Gateway) []mergedParent {
	var out []mergedParent
	taken := takenPorts{}
	for _, of := range parents(v, gw) {
		p := mergedParent{of, make([]mergedListener, len(of.listeners))}
		for i, l := range of.listeners {
			m := &p.merged[i]
			*m = mergedListener{Listener: l, of: of, index: i}
			if m.refuse(); len(m.refused) == 0 {
				taken.take(m)
			}
		}
		out = append(out, p)
	}
	return out
}

// mergedListeners are those of a Gateway and of the ListenerSets that it takes.
func mergedListeners(v ListenerSetView, gw *gatewayv1.Gateway) []mergedListener {
	var out []mergedListener
	for _, p := range merge(v, gw) {
		out = append(out, p.merged...)
	}
	return out
}

// refuse finds what is wrong with a listener by itself.
func (m *mergedListener) refuse() {
	switch {
	case m.Protocol == hboneProtocol && !m.of.isSet():
	case len(listenerKinds(m.Listener)) == 0:
		m.refused, m.reason = []string{fmt.Sprintf("the protocol %s is not supported", m.Protocol)}, gatewayv1.ListenerReasonUnsupportedProtocol
	case m.Hostname != nil && *m.Hostname != "" && !validHost(string(*m.Hostname)):
		m.refused, m.reason = []string{fmt.Sprintf("%q is no host name", *m.Hostname)}, gatewayv1.ListenerReasonUnsupportedValue
	case m.of.isSet() && slices.Contains(ownPorts(), m.Port):
		m.refused, m.reason = []string{fmt.Sprintf("the port %d is one of the gateway's own", m.Port)}, gatewayv1.ListenerReasonPortUnavailable
	}
}

// ownPorts are those that a gateway's pods listen on for themselves, or a mesh for them. Who may write a ListenerSet must not be able to
// keep the whole Gateway from serving.
func ownPorts() []gatewayv1.PortNumber {
	return []gatewayv1.PortNumber{15000, 15001, 15006, 15008, 15020, 15021, 15053, 15090}
}

// takenPorts is who has a port first, and who each host name of it.
type takenPorts map[gatewayv1.PortNumber]*takenPort

type takenPort struct {
	first *mergedListener
	hosts map[string]*mergedListener
}

// take gives a listener its port and host name, or says which earlier one it cannot be told from.
func (t takenPorts) take(m *mergedListener) {
	host := "*"
	if m.Hostname != nil && *m.Hostname != "" {
		host = strings.ToLower(string(*m.Hostname))
	}
	p := t[m.Port]
	if p == nil {
		t[m.Port] = &takenPort{first: m, hosts: map[string]*mergedListener{host: m}}
		return
	}
	conflict := func(reason gatewayv1.ListenerConditionReason, by *mergedListener, what string) {
		m.conflicted, m.reason, m.refused = true, reason, []string{by.toldTo(m) + what}
	}
	switch by := p.hosts[host]; {
	case p.first.Protocol != m.Protocol && !(bySNI(p.first.Listener) && bySNI(m.Listener)):
		conflict(gatewayv1.ListenerReasonProtocolConflict, p.first, " has the port for another protocol")
	case m.Protocol == gatewayv1.TCPProtocolType:
		conflict(gatewayv1.ListenerReasonHostnameConflict, p.first, " has the same port")
	case by != nil:
		conflict(gatewayv1.ListenerReasonHostnameConflict, by, " has the same port and host name")
	default:
		p.hosts[host] = m
	}
}

// toldTo is how a listener is called in what is told of another: who writes a ListenerSet need not know who else does.
func (m *mergedListener) toldTo(other *mergedListener) string {
	if m.of == other.of {
		return "listener " + string(m.Name)
	}
	return "a listener of the Gateway, or of another of its ListenerSets,"
}

// bySNI reports whether connections find a listener by their server name.
func bySNI(l *gatewayv1.Listener) bool {
	return l.Protocol == gatewayv1.TLSProtocolType || l.Protocol == gatewayv1.HTTPSProtocolType
}
