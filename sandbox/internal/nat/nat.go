// Package nat translates the addresses of Services on one node, as kube-proxy does: connections to a Service's address go
// to a random endpoint, those to one without endpoints are refused.
//
// Rules is pure; Apply puts the text into a node's network namespace in one step.
package nat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/ns"
)

const table = "sandbox-services"

// Node is where the rules are for.
type Node struct {
	Name string
	// Addresses at which node ports are served.
	Addresses []netip.Addr
}

// front is an address and port under which a Service is reached.
type front struct {
	ip       netip.Addr
	protocol string
	port     int32
	// node is set for a node port. Who comes to one is to be answered by way of this node, wherever the endpoint is.
	node bool
}

// fromNodePort marks connections to node ports, as kube-proxy does.
const fromNodePort = 0x4000

// Rules is the node's table, in nft's language. Equal inputs give equal texts.
func Rules(node Node, services []*corev1.Service, slices []*discoveryv1.EndpointSlice) string {
	b := &builder{node: node, slices: map[string][]*discoveryv1.EndpointSlice{}}
	for _, s := range slices {
		key := s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]
		b.slices[key] = append(b.slices[key], s)
	}
	for _, s := range services {
		b.service(s)
	}
	return b.String()
}

type builder struct {
	node         Node
	slices       map[string][]*discoveryv1.EndpointSlice
	nat, refuse  []string
	local        map[netip.Addr]bool // endpoints that are Service backends: they may reach themselves
	localInOrder []netip.Addr
}

func (b *builder) service(s *corev1.Service) {
	if s.Spec.Type == corev1.ServiceTypeExternalName || s.Spec.ClusterIP == corev1.ClusterIPNone {
		return
	}
	for _, p := range s.Spec.Ports {
		protocol := strings.ToLower(string(p.Protocol))
		if protocol != "tcp" && protocol != "udp" {
			continue
		}
		var fronts []front
		for _, text := range s.Spec.ClusterIPs {
			if ip, err := netip.ParseAddr(text); err == nil {
				fronts = append(fronts, front{ip, protocol, p.Port, false})
			}
		}
		for _, in := range s.Status.LoadBalancer.Ingress {
			if ip, err := netip.ParseAddr(in.IP); err == nil {
				fronts = append(fronts, front{ip, protocol, p.Port, false})
			}
		}
		if p.NodePort != 0 {
			for _, ip := range b.node.Addresses {
				fronts = append(fronts, front{ip, protocol, p.NodePort, true})
			}
		}
		for _, f := range fronts {
			b.front(s, p, f)
		}
	}
}

func (b *builder) front(s *corev1.Service, p corev1.ServicePort, f front) {
	family := "ip"
	if f.ip.Is6() {
		family = "ip6"
	}
	what := fmt.Sprintf("%s daddr %s %s dport %d", family, f.ip, f.protocol, f.port)
	backends := b.backends(s, p, f.ip.Is4())
	if len(backends) == 0 {
		with := "tcp reset"
		if f.protocol == "udp" {
			with = "icmpx port-unreachable"
		}
		b.refuse = append(b.refuse, what+" reject with "+with)
		return
	}
	to := make([]string, len(backends))
	for i, backend := range backends {
		to[i] = fmt.Sprintf("%d : %s . %d", i, backend.Addr(), backend.Port())
		b.remember(backend.Addr())
	}
	if f.node {
		what += fmt.Sprintf(" meta mark set meta mark or %#x", fromNodePort)
	}
	b.nat = append(b.nat, fmt.Sprintf("%s dnat %s to numgen random mod %d map { %s }", what, family, len(to), strings.Join(to, ", ")))
}

func (b *builder) remember(ip netip.Addr) {
	if b.local == nil {
		b.local = map[netip.Addr]bool{}
	}
	if !b.local[ip] {
		b.local[ip] = true
		b.localInOrder = append(b.localInOrder, ip)
	}
}

// backends are the endpoints that take new connections: those that are ready or, if there are none, those that still
// serve while they end.
func (b *builder) backends(s *corev1.Service, p corev1.ServicePort, v4 bool) []netip.AddrPort {
	var ready, serving []netip.AddrPort
	for _, slice := range b.slices[s.Namespace+"/"+s.Name] {
		for _, port := range slice.Ports {
			if port.Port == nil || port.Name != nil && *port.Name != p.Name {
				continue
			}
			for _, e := range slice.Endpoints {
				for _, text := range e.Addresses {
					ip, err := netip.ParseAddr(text)
					if err != nil || ip.Is4() != v4 {
						continue
					}
					to := netip.AddrPortFrom(ip, uint16(*port.Port))
					switch {
					case e.Conditions.Ready == nil || *e.Conditions.Ready:
						ready = append(ready, to)
					case e.Conditions.Serving != nil && *e.Conditions.Serving:
						serving = append(serving, to)
					}
				}
			}
		}
	}
	if len(ready) == 0 {
		ready = serving
	}
	slices.SortFunc(ready, netip.AddrPort.Compare)
	return slices.Compact(ready)
}

func (b *builder) String() string {
	var out strings.Builder
	chain := func(name, head string, rules []string) {
		fmt.Fprintf(&out, " chain %s {\n  %s\n", name, head)
		for _, r := range rules {
			fmt.Fprintf(&out, "  %s\n", r)
		}
		out.WriteString(" }\n")
	}
	fmt.Fprintf(&out, "table inet %s {}\ndelete table inet %s\ntable inet %s {\n", table, table, table)
	chain("services", "", b.nat)
	chain("refused", "", b.refuse)
	chain("prerouting", "type nat hook prerouting priority -100; policy accept;", []string{"jump services"})
	chain("output", "type nat hook output priority -100; policy accept;", []string{"jump services"})
	chain("forward", "type filter hook forward priority 0; policy accept;", []string{"jump refused"})
	chain("local", "type filter hook output priority 0; policy accept;", []string{"jump refused"})
	hairpin := []string{fmt.Sprintf("meta mark and %#x == %#x masquerade", fromNodePort, fromNodePort)}
	for _, ip := range b.localInOrder {
		family := "ip"
		if ip.Is6() {
			family = "ip6"
		}
		hairpin = append(hairpin, fmt.Sprintf("%s saddr %s %s daddr %s masquerade", family, ip, family, ip))
	}
	chain("postrouting", "type nat hook postrouting priority 100; policy accept;", hairpin)
	out.WriteString("}\n")
	return out.String()
}

// Apply puts the table in place of the one before.
func Apply(ctx context.Context, node *os.File, rules string) error {
	var output bytes.Buffer
	err := ns.Set{Net: node}.Do(func() error {
		cmd := exec.CommandContext(ctx, "nft", "-f", "-")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(rules), &output, &output
		return cmd.Run()
	})
	if errors.Is(err, exec.ErrNotFound) {
		return errors.New("the command nft is missing: install the package nftables")
	}
	if err != nil {
		return fmt.Errorf("translate service addresses: %w: %s", err, bytes.TrimSpace(output.Bytes()))
	}
	return nil
}
