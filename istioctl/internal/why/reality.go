package why

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// passed is a proxy that a hop stands for: of a node, or of a Gateway.
type passed struct {
	node    string
	gateway string // namespace/name
}

// Compare asks the control plane how far the proxies on the way have come, and the ztunnels what they know of whom it is about.
func (m *Model) Compare(ctx context.Context, mesh *reach.Mesh, istioNamespace string, r *Report) {
	states, err := syncs(ctx, mesh, istioNamespace)
	if err != nil {
		r.Notes = append(r.Notes, "how far proxies have come is not known: "+err.Error())
		return
	}
	var done []passed
	for _, h := range r.Hops {
		if h.proxy == (passed{}) || slices.Contains(done, h.proxy) {
			continue
		}
		done = append(done, h.proxy)
		pods, err := m.proxyPods(ctx, mesh, h.proxy)
		if err != nil {
			r.Notes = append(r.Notes, err.Error())
			continue
		}
		for _, pod := range pods {
			p := ProxyState{Proxy: pod.String()}
			p.State, p.Stale = stateOf(states, pod.String())
			if h.proxy.node != "" {
				p.Differs = m.ztunnelDiffers(ctx, mesh, pod, r)
			} else {
				p.Differs = gatewayDiffers(ctx, mesh, istioNamespace, states, pod)
			}
			r.Proxies = append(r.Proxies, p)
		}
	}
}

func syncs(ctx context.Context, mesh *reach.Mesh, istioNamespace string) ([]dump.Sync, error) {
	pods, err := mesh.Istiod(ctx, istioNamespace, "")
	if err != nil {
		return nil, err
	}
	var out []dump.Sync
	for _, pod := range pods {
		data, err := mesh.Get(ctx, pod, reach.DebugPort, "/debug/syncz")
		if err != nil {
			return nil, err
		}
		all, err := dump.ReadSync(data, pod.Name)
		if err != nil {
			return nil, err
		}
		out = append(out, all...)
	}
	return out, nil
}

func (m *Model) proxyPods(ctx context.Context, mesh *reach.Mesh, p passed) ([]reach.Pod, error) {
	if p.gateway != "" {
		ns, name, _ := strings.Cut(p.gateway, "/")
		return mesh.Pods(ctx, ns, labelGatewayName+"="+name)
	}
	pods, err := mesh.Pods(ctx, "", "app=ztunnel")
	return slices.DeleteFunc(pods, func(pod reach.Pod) bool { return pod.Node != p.node }), err
}

// stateOf says how far a proxy has come with each type.
func stateOf(states []dump.Sync, name string) (text string, stale bool) {
	i := slices.IndexFunc(states, func(s dump.Sync) bool { return s.Name == name })
	if i < 0 {
		return "not connected to the control plane", true
	}
	var parts []string
	for _, kind := range states[i].Ordered() {
		t := states[i].Types[kind]
		if t.State == dump.Ignored {
			continue
		}
		stale = stale || t.State == dump.Stale || t.State == dump.Refused
		parts = append(parts, kind+" "+t.Describe(time.Now()))
		if t.Error != "" {
			parts = append(parts, "("+t.Error+")")
		}
	}
	return strings.Join(parts, ", "), stale
}

// gatewayDiffers compares what a waypoint or gateway has with what it should have; nothing when the control plane does not say.
func gatewayDiffers(ctx context.Context, mesh *reach.Mesh, istioNamespace string, states []dump.Sync, pod reach.Pod) (out []string) {
	i := slices.IndexFunc(states, func(s dump.Sync) bool { return s.Name == pod.String() })
	if i < 0 {
		return nil
	}
	istiod := reach.Pod{Namespace: istioNamespace, Name: states[i].ControlBy}
	should, err := envoyOf(ctx, mesh, istiod, reach.DebugPort, "/debug/config_dump?proxyID="+url.QueryEscape(pod.String()))
	if err != nil {
		return nil
	}
	has, err := envoyOf(ctx, mesh, pod, reach.AdminPort, "/config_dump")
	if err != nil {
		return []string{err.Error()}
	}
	for _, d := range dump.Compare(should, has) {
		if len(d.Lines) > 0 {
			out = append(out, strings.ToLower(d.Section)+" are not those that it should have: istioctl proxy-status "+pod.String()+" shows how they differ")
		}
	}
	return out
}

func envoyOf(ctx context.Context, mesh *reach.Mesh, pod reach.Pod, port int, path string) (*dump.Envoy, error) {
	data, err := mesh.Get(ctx, pod, port, path)
	if err != nil {
		return nil, err
	}
	return dump.ReadEnvoy(data)
}

// ztunnelDiffers compares what a ztunnel knows of the ends of the way with what it should know.
func (m *Model) ztunnelDiffers(ctx context.Context, mesh *reach.Mesh, pod reach.Pod, r *Report) (out []string) {
	data, err := mesh.Get(ctx, pod, reach.AdminPort, "/config_dump")
	if err != nil {
		return []string{err.Error()}
	}
	z, err := dump.ReadZtunnel(data)
	if err != nil {
		return []string{err.Error()}
	}
	for _, w := range r.ends {
		out = append(out, workloadDiffers(z, w)...)
	}
	if s := r.service; s != nil {
		out = append(out, serviceDiffers(z, s)...)
	}
	return out
}

func workloadDiffers(z *dump.Ztunnel, w *l4.Workload) []string {
	if len(w.Addresses) == 0 || w.HostNetwork {
		return nil
	}
	name := w.Namespace + "/" + w.Name
	found := z.Workloads(dump.WorkloadFilter{Address: w.Addresses[0].String(), Namespace: w.Namespace})
	if len(found) == 0 {
		return []string{"it does not know workload " + name + " (ztunnels that load on demand learn of it when it is first asked for)"}
	}
	var have struct {
		Protocol string   `json:"protocol"`
		Policies []string `json:"authorizationPolicies"`
	}
	if !into(found[0], &have) {
		return nil
	}
	var out []string
	want := "TCP"
	if w.HBONE {
		want = "HBONE"
	}
	if have.Protocol != "" && have.Protocol != want {
		out = append(out, fmt.Sprintf("it takes workload %s for %s, and it should be %s", name, have.Protocol, want))
	}
	slices.Sort(have.Policies)
	should := slices.Sorted(slices.Values(w.Policies))
	if !slices.Equal(have.Policies, should) {
		out = append(out, fmt.Sprintf("policies of workload %s: it has [%s], and should have [%s]", name, strings.Join(have.Policies, " "), strings.Join(should, " ")))
	}
	return out
}

func serviceDiffers(z *dump.Ztunnel, s *l4.Service) []string {
	for _, v := range z.Services(s.Namespace) {
		var have struct {
			Hostname string          `json:"hostname"`
			Waypoint json.RawMessage `json:"waypoint"`
		}
		if !into(v, &have) || have.Hostname != s.Hostname {
			continue
		}
		has := len(have.Waypoint) > 0 && string(have.Waypoint) != "null"
		switch {
		case has && s.Waypoint == nil:
			return []string{"it sends service " + s.String() + " through a waypoint, and should not"}
		case !has && s.Waypoint != nil:
			return []string{"it does not know that service " + s.String() + " has a waypoint"}
		}
		return nil
	}
	return []string{"it does not know service " + s.String() + " (ztunnels that load on demand learn of it when it is first asked for)"}
}

func into(v, to any) bool {
	data, err := json.Marshal(v)
	return err == nil && json.Unmarshal(data, to) == nil
}

// Send sends what was asked about from the source's own pod, and tells whether what happens is what was predicted.
func (m *Model) Send(ctx context.Context, mesh *reach.Mesh, r *Report) {
	r.Probe = &Probe{}
	switch {
	case r.source == nil:
		r.Probe.Error = "there is no pod that it could be sent from: name a pod of the mesh as the source"
		return
	case r.Question.Identity != "":
		r.Probe.Error = "a pod can only be itself: leave --identity away"
		return
	}
	pod := reach.Pod{Namespace: r.source.Namespace, Name: r.source.Name, Node: r.source.Spec.NodeName, Running: true}
	if r.Question.Method == "" && !r.http {
		m.connect(ctx, mesh, r, pod)
		return
	}
	var reasons []string
	for _, client := range r.clients() {
		var stdout, stderr bytes.Buffer
		code, err := mesh.Exec(ctx, pod, containerOf(r.source), client, &stdout, &stderr)
		if missing(code, err, stderr.String()) {
			reasons = append(reasons, client[0]+" is not in the container")
			continue
		}
		if err != nil {
			r.Probe.Error = err.Error()
			return
		}
		r.Probe.Command = strings.Join(client, " ")
		r.judge(client[0], code, stdout.String(), stderr.String())
		return
	}
	r.Probe.Error = fmt.Sprintf("pod %s has no client to send it with (%s): probe from one that has curl or wget; %s", pod, strings.Join(reasons, ", "), beside(pod))
}

// containerOf is the first container that is not the mesh's.
func containerOf(p *corev1.Pod) string {
	for _, c := range p.Spec.Containers {
		if c.Name != "istio-proxy" {
			return c.Name
		}
	}
	return ""
}

// missing is whether a program is not there.
func missing(code int, err error, stderr string) bool {
	text := stderr
	if err != nil {
		text += err.Error()
	}
	return code == 126 || code == 127 || strings.Contains(text, "executable file not found") || strings.Contains(text, "no such file or directory")
}

// beside is how a client gets into a pod that has none.
func beside(pod reach.Pod) string {
	return fmt.Sprintf("kubectl debug -it %s -n %s --image=IMAGE starts one in its network, with its identity", pod.Name, pod.Namespace)
}

// target is whom a client connects to.
func (r *Report) target() string {
	host := r.Question.To
	if name, port, err := splitPort(host); err == nil && port == 0 && r.port != 0 {
		host = name + ":" + strconv.Itoa(int(r.port))
	}
	host = strings.TrimPrefix(strings.TrimPrefix(host, "svc/"), "service/")
	if r.address != "" {
		host = r.address
	}
	return host
}

// clients are the commands that can send it, the best first.
func (r *Report) clients() [][]string {
	url := "http://" + r.target() + orSlash(r.Question.Path)
	method := r.Question.Method
	if method == "" {
		method = "GET"
	}
	curl := []string{"curl", "-sS", "-o", "/dev/null", "--max-time", "10", "-w", "%{http_code}", "-X", method}
	wget := []string{"wget", "-S", "-O", "/dev/null", "-T", "10"}
	for _, h := range r.Question.Headers {
		curl = append(curl, "-H", h)
		wget = append(wget, "--header", h)
	}
	out := [][]string{append(curl, url)}
	if method == "GET" {
		out = append(out, append(wget, url))
	}
	return out
}

// judge compares what happened with what was predicted.
func (r *Report) judge(client string, code int, stdout, stderr string) {
	p, v := r.Probe, r.Verdict
	status := 0
	switch client {
	case "curl":
		status, _ = strconv.Atoi(strings.TrimSpace(stdout))
	case "wget":
		status = wgetStatus(stderr)
	}
	switch {
	case status > 0:
		p.Answer = "answered " + strconv.Itoa(status)
	default:
		p.Answer = fmt.Sprintf("failed (exit code %d): %s", code, lastLine(stderr))
	}
	failed := status == 0
	refusing := status == 502 || status == 503 || status == 504
	p.Reached = !failed && !refusing && (v.Status == 0 || v.Status != status)
	switch {
	case v.Status != 0:
		p.Agrees = status == v.Status
	case v.Outcome == Allowed:
		p.Agrees = !failed && !refusing
	default:
		p.Agrees = failed || refusing
	}
	// Where requests part, and where a sidecar decides, any of the outcomes may be met.
	p.Agrees = p.Agrees || v.Share != 0 || v.Outcome == Unknown
}

func wgetStatus(stderr string) int {
	out := 0
	for line := range strings.SplitSeq(stderr, "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[0], "HTTP/") {
			out, _ = strconv.Atoi(fields[1])
		}
	}
	return out
}

func lastLine(s string) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return all[len(all)-1]
}
