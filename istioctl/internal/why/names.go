package why

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

const (
	labelGatewayName = "gateway.networking.k8s.io/gateway-name"
	outsideName      = "outside"
)

// source is who connects.
type source struct {
	title string
	// pod and workload are nil for what is outside of the mesh's knowledge, gateway is set when it is a gateway that clients come to.
	pod      *corev1.Pod
	workload *l4.Workload
	gateway  string // namespace/name
	identity spiffe.ID
	address  netip.Addr
	// namespace in which short names are looked up.
	namespace string
}

// outsideAddress is that of a client that nobody knows: of a range that is for documentation.
func outsideAddress() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, 1}) }

// unknown is a name that means nothing.
type unknown struct{ text string }

func (u *unknown) Error() string { return u.text }

// qualified reads name or name.namespace.
func qualified(text, namespace string) (name, ns string) {
	if i := strings.LastIndexByte(text, '.'); i > 0 {
		return text[:i], text[i+1:]
	}
	return text, namespace
}

// source finds who connects.
func (m *Model) source(text, namespace string) (*source, error) {
	if text == outsideName {
		return &source{title: "a client outside of the mesh", address: outsideAddress(), namespace: namespace}, nil
	}
	kind, rest, slash := strings.Cut(text, "/")
	if !slash {
		kind, rest = "pod", text
	}
	name, ns := qualified(rest, namespace)
	switch strings.ToLower(kind) {
	case "gateway", "gtw", "gateways":
		return m.gatewaySource(name, ns)
	case "pod", "po", "pods":
		if p := m.pods[ns+"/"+name]; p != nil {
			return m.podSource(p), nil
		}
		// A workload's or a service's name says well enough what is meant.
		for _, selected := range [][]*corev1.Pod{m.podsOfWorkload("Deployment", ns, name), m.podsOfService(ns, name)} {
			if p := best(selected); p != nil && !slash {
				return m.podSource(p), nil
			}
		}
	case "service", "svc", "services":
		if p := best(m.podsOfService(ns, name)); p != nil {
			return m.podSource(p), nil
		}
		if m.objects[key("Service", ns, name)] != nil {
			return nil, &unknown{fmt.Sprintf("service %s/%s has no pods: nobody of it can connect", ns, name)}
		}
	default:
		full := map[string]string{
			"deployment": "Deployment", "deploy": "Deployment", "deployments": "Deployment", "statefulset": "StatefulSet", "sts": "StatefulSet",
			"daemonset": "DaemonSet", "ds": "DaemonSet", "replicaset": "ReplicaSet", "rs": "ReplicaSet",
		}[strings.ToLower(kind)]
		if full == "" {
			return nil, &unknown{fmt.Sprintf("%q: the source is POD, POD.NAMESPACE, deploy/NAME, svc/NAME, gateway/NAME or %s", text, outsideName)}
		}
		if p := best(m.podsOfWorkload(full, ns, name)); p != nil {
			return m.podSource(p), nil
		}
		if m.objects[key(full, ns, name)] != nil {
			return nil, &unknown{fmt.Sprintf("%s %s/%s has no pods", full, ns, name)}
		}
	}
	return nil, &unknown{fmt.Sprintf("there is no %s %s in namespace %s%s", kind, name, ns, m.suggestSource(name))}
}

func (m *Model) gatewaySource(name, ns string) (*source, error) {
	if m.objects[key("Gateway", ns, name)] == nil && m.classic(ns, name) == nil {
		return nil, &unknown{fmt.Sprintf("there is no Gateway %s in namespace %s", name, ns)}
	}
	return &source{title: "a client of gateway " + ns + "/" + name, gateway: ns + "/" + name, address: outsideAddress(), namespace: ns}, nil
}

func (m *Model) podSource(p *corev1.Pod) *source {
	s := &source{title: "pod " + p.Namespace + "/" + p.Name, pod: p, namespace: p.Namespace}
	for w := range m.podWorkloads(p) {
		s.workload, s.identity = w, w.Identity()
		if len(w.Addresses) > 0 {
			s.address = w.Addresses[0]
		}
	}
	return s
}

// podWorkloads yields the workload of a pod, if it has one.
func (m *Model) podWorkloads(p *corev1.Pod) func(yield func(*l4.Workload) bool) {
	return func(yield func(*l4.Workload) bool) {
		for _, w := range m.State.WorkloadsNamed(p.Namespace, p.Name) {
			if strings.Contains(w.UID, "//Pod/") {
				yield(w)
				return
			}
		}
	}
}

// best is the first pod that is ready, or the first.
func best(pods []*corev1.Pod) *corev1.Pod {
	for _, p := range pods {
		if ready(p) {
			return p
		}
	}
	if len(pods) > 0 {
		return pods[0]
	}
	return nil
}

func ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// podsIn are the pods of a namespace, by name.
func (m *Model) podsIn(namespace string, selected func(*corev1.Pod) bool) []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range m.inNamespace[namespace] {
		if selected(p) {
			out = append(out, p)
		}
	}
	return out
}

func (m *Model) podsOfService(ns, name string) []*corev1.Pod {
	s := object[*corev1.Service](m, "Service", ns, name)
	if s == nil || len(s.Spec.Selector) == 0 {
		return nil
	}
	return m.podsIn(ns, func(p *corev1.Pod) bool { return matchesSelectorSet(s.Spec.Selector, p.Labels) })
}

func (m *Model) podsOfWorkload(kind, ns, name string) []*corev1.Pod {
	var selector *metav1.LabelSelector
	switch o := m.objects[key(kind, ns, name)].(type) {
	case *appsv1.Deployment:
		selector = o.Spec.Selector
	case *appsv1.StatefulSet:
		selector = o.Spec.Selector
	case *appsv1.DaemonSet:
		selector = o.Spec.Selector
	case *appsv1.ReplicaSet:
		selector = o.Spec.Selector
	default:
		if kind != "Deployment" {
			return nil
		}
		// A live model has no Deployments: pods say whose they are.
		return m.podsIn(ns, func(p *corev1.Pod) bool {
			w := m.workloads[m.Mesh.Settings().ClusterID+"//Pod/"+ns+"/"+p.Name]
			return w != nil && w.Proto.WorkloadName == name
		})
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil || s.Empty() {
		return nil
	}
	return m.podsIn(ns, func(p *corev1.Pod) bool { return s.Matches(labels.Set(p.Labels)) })
}

// suggestSource is what may have been meant.
func (m *Model) suggestSource(name string) string {
	var names []string
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet"} {
		for _, o := range m.byKind[kind] {
			names = append(names, strings.ToLower(kind[:1])+kind[1:]+"/"+o.GetName()+"."+o.GetNamespace())
		}
	}
	for _, p := range m.pods {
		names = append(names, p.Name+"."+p.Namespace)
	}
	bare := func(s string) string {
		s = s[strings.LastIndexByte(s, '/')+1:]
		n, _ := qualified(s, "")
		return n
	}
	return didYouMean(name, names, bare)
}

// destination is whom the client means.
type destination struct {
	title string
	// service is set for a name or address of one, workload for the address of one; neither for what the mesh does not know.
	service  *l4.Service
	workload *l4.Workload
	address  netip.Addr
	port     uint16
	host     string
	// gateway is namespace/name of a Gateway that is meant itself.
	gateway string
	// external is a name that nothing in the mesh has.
	external bool
}

// destination finds whom the client of a namespace means.
func (m *Model) destination(text string, from *source) (*destination, error) {
	name, port, err := splitPort(text)
	if err != nil {
		return nil, err
	}
	d := &destination{host: name, port: port}
	if gw, ok := strings.CutPrefix(name, "gateway/"); ok {
		n, ns := qualified(gw, from.namespace)
		if m.objects[key("Gateway", ns, n)] == nil && m.classic(ns, n) == nil {
			return nil, &unknown{fmt.Sprintf("there is no Gateway %s in namespace %s", n, ns)}
		}
		d.gateway, d.title = ns+"/"+n, "gateway "+ns+"/"+n
		return d, nil
	}
	if kind, rest, ok := strings.Cut(name, "/"); ok {
		switch kind {
		case "svc", "service", "pod", "po":
			name = rest
		default:
			return nil, &unknown{fmt.Sprintf("%q: the destination is a service, a pod, an address, a host, or gateway/NAME", text)}
		}
	}
	network := ""
	if from.workload != nil {
		network = from.workload.Network
	}
	if ip, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		d.address, d.title = ip.Unmap(), ip.String()
		d.service = m.State.ServiceByVIP(network, d.address, from.namespace)
		d.workload = m.State.WorkloadByIP(network, d.address)
		return d, m.choosePort(d, text)
	}
	if s := m.lookup(name, from.namespace); s != nil {
		d.service, d.title, d.host = s, s.Hostname, s.Hostname
		for _, vip := range s.VIPs {
			if vip.Network == network && !d.address.IsValid() {
				d.address = vip.IP
			}
		}
		return d, m.choosePort(d, text)
	}
	podName, ns := qualified(name, from.namespace)
	for _, candidate := range []*corev1.Pod{m.pods[ns+"/"+podName], m.pods[from.namespace+"/"+name]} {
		if candidate == nil {
			continue
		}
		d.title = "pod " + candidate.Namespace + "/" + candidate.Name
		for w := range m.podWorkloads(candidate) {
			d.workload = w
			if len(w.Addresses) > 0 {
				d.address = w.Addresses[0]
			}
		}
		if d.workload == nil {
			return nil, &unknown{fmt.Sprintf("pod %s/%s has no address", candidate.Namespace, candidate.Name)}
		}
		return d, m.choosePort(d, text)
	}
	if strings.Contains(name, ".") && !strings.HasSuffix(name, ".svc") && !strings.HasSuffix(name, "."+m.Mesh.Settings().Domain) && m.namespaceOf(name) == "" {
		d.external, d.title = true, name
		return d, nil
	}
	return nil, &unknown{fmt.Sprintf("no service, pod or ServiceEntry is called %s%s", name, m.suggestDestination(name))}
}

// namespaceOf is the namespace in a name of the form service.namespace, if there is such a namespace.
func (m *Model) namespaceOf(name string) string {
	if _, ns := qualified(name, ""); m.namespace(ns) != nil {
		return ns
	}
	return ""
}

// lookup resolves a name as a pod does: by its search path, then as it is.
func (m *Model) lookup(name, namespace string) *l4.Service {
	domain := m.Mesh.Settings().Domain
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for _, full := range []string{name + "." + namespace + ".svc." + domain, name + ".svc." + domain, name + "." + domain, name} {
		if s := l4.PreferredService(m.State.ServicesByHostname(full), namespace); s != nil {
			return s
		}
	}
	// Wildcards of ServiceEntries cover names.
	for rest := name; ; {
		_, after, ok := strings.Cut(rest, ".")
		if !ok {
			return nil
		}
		if s := l4.PreferredService(m.State.ServicesByHostname("*."+after), namespace); s != nil {
			return s
		}
		rest = after
	}
}

// splitPort reads name:port; the port is 0 when there is none.
func splitPort(text string) (string, uint16, error) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 || strings.HasSuffix(text, "]") || strings.Count(text, ":") > 1 && !strings.HasPrefix(text, "[") {
		return text, 0, nil
	}
	port, err := strconv.ParseUint(text[i+1:], 10, 16)
	if err != nil || port == 0 {
		return "", 0, fmt.Errorf("%q: the port is none", text)
	}
	return text[:i], uint16(port), nil
}

// choosePort takes the only port, or the first of HTTP, when none is named.
func (m *Model) choosePort(d *destination, text string) error {
	if d.port != 0 {
		return nil
	}
	if s := d.service; s != nil {
		var known []string
		for _, p := range s.Ports {
			known = append(known, strconv.Itoa(int(p.Service)))
			if len(s.Ports) == 1 || isHTTP(p.Protocol) {
				d.port = p.Service
				return nil
			}
		}
		if len(known) > 0 {
			return fmt.Errorf("%s has several ports: name one of %s, as %s:%s", text, strings.Join(known, ", "), text, known[0])
		}
		return fmt.Errorf("%s has no TCP port", text)
	}
	if p := m.podOf(d.workload); p != nil {
		if ports := containerPorts(p); len(ports) == 1 {
			d.port = uint16(ports[0].ContainerPort)
			return nil
		}
	}
	return fmt.Errorf("which port of %s: name it as %s:PORT", text, text)
}

func isHTTP(p workload.AppProtocol) bool {
	switch p {
	case workload.AppProtocol_HTTP11, workload.AppProtocol_HTTP2, workload.AppProtocol_GRPC:
		return true
	}
	return false
}

// containerPorts are the TCP ports that containers say they listen on.
func containerPorts(p *corev1.Pod) (out []corev1.ContainerPort) {
	for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
		for _, port := range c.Ports {
			if port.Protocol == "" || port.Protocol == corev1.ProtocolTCP {
				out = append(out, port)
			}
		}
	}
	return out
}

func (m *Model) suggestDestination(name string) string {
	var names []string
	for s := range m.State.Services() {
		names = append(names, shortHost(s.Hostname, m.Mesh.Settings()))
	}
	return didYouMean(name, names, func(s string) string {
		if strings.Contains(name, ".") {
			return s
		}
		first, _, _ := strings.Cut(s, ".")
		return first
	})
}

// shortHost is name.namespace of a Kubernetes Service.
func shortHost(host string, mesh ambient.Mesh) string {
	return strings.TrimSuffix(host, ".svc."+mesh.Domain)
}

// didYouMean names the nearest of the names.
func didYouMean(name string, names []string, bare func(string) string) string {
	slices.Sort(names)
	best, distance := "", 3
	for _, n := range names {
		if d := editDistance(name, bare(n)); d < distance {
			best, distance = n, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// editDistance is how many letters have to be put in, taken out, replaced, or exchanged with the next.
func editDistance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(row[j+1]+1, next[j]+1, row[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}

// identity reads spiffe://… or namespace/account.
func (m *Model) identity(text string) (spiffe.ID, error) {
	if strings.HasPrefix(text, "spiffe://") {
		return spiffe.Parse(text)
	}
	ns, account, ok := strings.Cut(text, "/")
	if !ok || ns == "" || account == "" || strings.Contains(account, "/") {
		return spiffe.ID{}, fmt.Errorf("--identity %q is neither spiffe://TRUSTDOMAIN/ns/NAMESPACE/sa/ACCOUNT nor NAMESPACE/ACCOUNT", text)
	}
	return spiffe.ID{TrustDomain: m.Mesh.Settings().TrustDomain, Namespace: ns, ServiceAccount: account}, nil
}
