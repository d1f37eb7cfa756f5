package dump

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Ztunnel is the configuration of a node proxy.
type Ztunnel struct {
	root         tree
	workloads    []any
	services     []any
	policies     []any
	certificates []any
	pods         map[string]any
	names        map[string]string // of workloads and services, by network/address
	hosts        map[string]string // names of services, by hostname
}

// ReadZtunnel reads an answer to /config_dump of a ztunnel.
func ReadZtunnel(data []byte) (*Ztunnel, error) {
	root, err := decode(data)
	if err != nil {
		return nil, err
	}
	if at(root, "configs") != nil {
		return nil, errors.New("it is the configuration of an Envoy or a waypoint: look at it by istioctl proxy-config")
	}
	if at(root, "workloads") == nil {
		return nil, errors.New("it is no configuration dump of a ztunnel: there is no field workloads")
	}
	z := &Ztunnel{
		root: root, workloads: elements(at(root, "workloads")), services: elements(at(root, "services")), policies: elements(at(root, "policies")),
		certificates: list(root, "certificates"), pods: object(root, "workloadState"), names: map[string]string{}, hosts: map[string]string{},
	}
	for _, w := range z.workloads {
		for _, ip := range list(w, "workloadIps") {
			z.names[text(w, "network")+"/"+fmt.Sprint(ip)] = text(w, "name") + "." + text(w, "namespace")
		}
	}
	for _, s := range z.services {
		z.hosts[text(s, "hostname")] = text(s, "name")
		for _, vip := range list(s, "vips") {
			z.names[fmt.Sprint(vip)] = text(s, "hostname")
		}
	}
	return z, nil
}

// elements are of a list, or, as older proxies write, of a map.
func elements(v tree) []any {
	if m := object(v); m != nil {
		out := make([]any, 0, len(m))
		for _, e := range m {
			out = append(out, e)
		}
		return out
	}
	return list(map[string]any{"list": v}, "list")
}

// Whole is the dump itself.
func (z *Ztunnel) Whole() any { return z.root }

// Merge adds what only the proxy of a node knows of another node's: certificates and connections.
func (z *Ztunnel) Merge(o *Ztunnel) {
	z.certificates = append(z.certificates, o.certificates...)
	if z.pods == nil {
		z.pods = map[string]any{}
	}
	for uid, pod := range o.pods {
		z.pods[uid] = pod
	}
}

// WorkloadFilter says which workloads are meant.
type WorkloadFilter struct{ Address, Namespace, Node string }

func (z *Ztunnel) selectWorkloads(f WorkloadFilter) []any {
	return selected(z.workloads, f.Namespace, func(w tree) bool {
		return (f.Node == "" || f.Node == text(w, "node")) && (f.Address == "" || slices.Contains(list(w, "workloadIps"), any(f.Address)))
	})
}

// selected are the elements of a namespace, or of all when it is empty, that are meant, by namespace and name.
func selected(all []any, namespace string, meant func(tree) bool) []any {
	out := []any{}
	for _, v := range all {
		if (namespace == "" || namespace == text(v, "namespace")) && (meant == nil || meant(v)) {
			out = append(out, v)
		}
	}
	slices.SortStableFunc(out, func(a, b any) int {
		return cmp.Or(cmp.Compare(text(a, "namespace"), text(b, "namespace")), cmp.Compare(text(a, "name"), text(b, "name")), cmp.Compare(text(a, "uid"), text(b, "uid")))
	})
	return out
}

// Workloads are the workloads whole.
func (z *Ztunnel) Workloads(f WorkloadFilter) []any { return z.selectWorkloads(f) }

// WorkloadTable shows the workloads.
func (z *Ztunnel) WorkloadTable(f WorkloadFilter) *Table {
	t := &Table{Columns: []string{"NAMESPACE", "POD NAME", "ADDRESS", "NODE", "WAYPOINT", "PROTOCOL"}}
	for _, w := range z.selectWorkloads(f) {
		address := "None"
		if ips := list(w, "workloadIps"); len(ips) > 0 {
			address = fmt.Sprint(ips[0])
		}
		t.Rows = append(t.Rows, []string{text(w, "namespace"), text(w, "name"), address, text(w, "node"), z.waypoint(w), text(w, "protocol")})
	}
	return t
}

// waypoint is the name of the waypoint that something uses.
func (z *Ztunnel) waypoint(v tree) string {
	if weighted := list(v, "weightedWaypoints"); len(weighted) > 0 {
		var parts []string
		for _, w := range weighted {
			parts = append(parts, fmt.Sprintf("%s (%d)", z.gateway(text(w, "destination", "destination")), number(w, "weight")))
		}
		return strings.Join(parts, ",")
	}
	destination := text(v, "waypoint", "destination")
	if destination == "" {
		return "None"
	}
	return z.gateway(destination)
}

// gateway names a gateway, which is network/address or namespace/hostname.
func (z *Ztunnel) gateway(destination string) string {
	host, known := z.names[destination]
	if !known {
		_, host, _ = strings.Cut(destination, "/")
	}
	return cmp.Or(z.hosts[host], host, destination)
}

// Services are the services whole.
func (z *Ztunnel) Services(namespace string) []any {
	return selected(z.services, namespace, nil)
}

// ServiceTable shows the services.
func (z *Ztunnel) ServiceTable(namespace string) *Table {
	t := &Table{Columns: []string{"NAMESPACE", "SERVICE NAME", "SERVICE VIP", "WAYPOINT", "ENDPOINTS"}}
	for _, s := range z.Services(namespace) {
		var vips []string
		for _, v := range list(s, "vips") {
			vips = append(vips, withoutNetwork(fmt.Sprint(v)))
		}
		endpoints := object(s, "endpoints")
		healthy := 0
		for _, e := range endpoints {
			if status := text(e, "status"); status == "" || status == "Healthy" {
				healthy++
			}
		}
		t.Rows = append(t.Rows, []string{
			text(s, "namespace"), text(s, "name"), strings.Join(vips, ","), z.waypoint(s), fmt.Sprintf("%d/%d", healthy, len(endpoints)),
		})
	}
	return t
}

// withoutNetwork shortens /address, which is of the network without a name.
func withoutNetwork(vip string) string { return strings.TrimPrefix(vip, "/") }

// Policies are the policies whole.
func (z *Ztunnel) Policies(namespace string) []any {
	return selected(z.policies, namespace, nil)
}

// PolicyTable shows the policies.
func (z *Ztunnel) PolicyTable(namespace string) *Table {
	t := &Table{Columns: []string{"NAMESPACE", "POLICY NAME", "ACTION", "SCOPE"}}
	for _, p := range z.Policies(namespace) {
		t.Rows = append(t.Rows, []string{text(p, "namespace"), text(p, "name"), text(p, "action"), text(p, "scope")})
	}
	return t
}

// Certificates are the certificates whole.
func (z *Ztunnel) Certificates() []any {
	out := append([]any{}, z.certificates...)
	slices.SortStableFunc(out, func(a, b any) int { return cmp.Compare(text(a, "identity"), text(b, "identity")) })
	return out
}

// CertificateTable shows the certificates; whether they are valid is asked at a time.
func (z *Ztunnel) CertificateTable(now time.Time) *Table {
	t := &Table{Columns: []string{"CERTIFICATE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"}, Gap: 5}
	for _, c := range z.Certificates() {
		name, state := text(c, "identity"), certState(at(c, "state"))
		chain, roots := list(c, "certChain"), list(c, "rootCerts")
		if len(chain)+len(roots) == 0 {
			t.Rows = append(t.Rows, []string{name, "Leaf", state, "false", "", "", ""})
		}
		for i, one := range chain {
			kind := "Leaf"
			if i > 0 {
				kind = "Intermediate"
			}
			t.Rows = append(t.Rows, certRow(name, kind, state, one, now))
		}
		for _, one := range roots {
			t.Rows = append(t.Rows, certRow(name, "Root", state, one, now))
		}
	}
	return t
}

// InvalidCertificates returns how many identities the ztunnel has certificates of, and those that are of no use at a time.
func (z *Ztunnel) InvalidCertificates(now time.Time) (held int, invalid []string) {
	for _, c := range z.certificates {
		name := text(c, "identity")
		chain := list(c, "certChain")
		state := certState(at(c, "state"))
		if len(chain) == 0 && state == "Initializing" {
			continue // it is being asked for
		}
		if len(chain) == 0 {
			invalid = append(invalid, fmt.Sprintf("%s has none (%s)", name, state))
			continue
		}
		held++
		if to, err := time.Parse(time.RFC3339, text(chain[0], "expirationTime")); err == nil && now.After(to) {
			invalid = append(invalid, fmt.Sprintf("%s has expired at %s", name, to.Format(time.RFC3339)))
		}
	}
	return held, invalid
}

// certState is a word, or, when there is something to say about it, a map from the word to that.
func certState(v tree) string {
	for word, why := range object(v) {
		return fmt.Sprintf("%s: %v", word, why)
	}
	s, _ := v.(string)
	return s
}

func certRow(name, kind, state string, c tree, now time.Time) []string {
	serial, notBefore, notAfter := text(c, "serialNumber"), text(c, "validFrom"), text(c, "expirationTime")
	from, errFrom := time.Parse(time.RFC3339, notBefore)
	to, errTo := time.Parse(time.RFC3339, notAfter)
	valid := errFrom == nil && errTo == nil && !now.Before(from) && !now.After(to)
	// The serial number is shown as tools for certificates do.
	if raw, err := base64.StdEncoding.DecodeString(text(c, "pem")); err == nil {
		if parsed := parsePEM(raw); len(parsed) > 0 {
			serial = parsed[0].SerialNumber.Text(16)
		}
	}
	return []string{name, kind, state, strconv.FormatBool(valid), serial, notAfter, notBefore}
}

// ConnectionFilter says which connections are meant.
type ConnectionFilter struct {
	// Direction is inbound or outbound, and Namespace that of the workload; empty for all.
	Direction, Namespace string
	// Raw shows addresses instead of names.
	Raw bool
}

// podConnections are the pods that are meant, with the connections that are meant.
func (z *Ztunnel) podConnections(f ConnectionFilter) []any {
	var all []any
	for _, pod := range z.pods {
		info := object(pod, "info")
		all = append(all, map[string]any{
			"state": at(pod, "state"), "name": at(info, "name"), "namespace": at(info, "namespace"), "info": info, "connections": at(pod, "connections"),
		})
	}
	out := selected(all, f.Namespace, nil)
	for i, pod := range out {
		shown := map[string]any{"state": at(pod, "state"), "info": at(pod, "info")}
		connections := map[string]any{}
		for _, direction := range []string{"inbound", "outbound"} {
			if f.Direction == "" || strings.EqualFold(f.Direction, direction) {
				connections[direction] = append([]any{}, list(pod, "connections", direction)...)
			}
		}
		shown["connections"] = connections
		out[i] = shown
	}
	return out
}

// Connections are the pods of the node with their connections.
func (z *Ztunnel) Connections(f ConnectionFilter) []any { return z.podConnections(f) }

// ConnectionTable shows the connections.
func (z *Ztunnel) ConnectionTable(f ConnectionFilter) *Table {
	t := &Table{Columns: []string{"WORKLOAD", "DIRECTION", "LOCAL", "REMOTE", "REMOTE TARGET", "PROTOCOL"}}
	name := func(address string) string {
		if f.Raw {
			return address
		}
		return z.name(address)
	}
	for _, pod := range z.podConnections(f) {
		who := text(pod, "info", "name") + "." + text(pod, "info", "namespace")
		for _, c := range list(pod, "connections", "inbound") {
			t.Rows = append(t.Rows, []string{who, "Inbound", name(text(c, "actualDst")), name(text(c, "src")), name(text(c, "originalDst")), protocol(c)})
		}
		for _, c := range list(pod, "connections", "outbound") {
			t.Rows = append(t.Rows, []string{who, "Outbound", name(text(c, "src")), name(text(c, "actualDst")), name(text(c, "originalDst")), protocol(c)})
		}
	}
	return t
}

func protocol(c tree) string { return cmp.Or(text(c, "protocol"), "-") }

// name puts a name in the place of an address that is known.
func (z *Ztunnel) name(address string) string {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil {
		return address
	}
	if name, ok := z.names["/"+parsed.Addr().Unmap().String()]; ok {
		return fmt.Sprintf("%s:%d", name, parsed.Port())
	}
	return address
}

// IsZtunnel tells whether a dump is a ztunnel's.
func IsZtunnel(data []byte) bool {
	var probe struct {
		Workloads json.RawMessage `json:"workloads"`
	}
	return json.Unmarshal(data, &probe) == nil && probe.Workloads != nil
}
