package predict

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/why"
	"github.com/isthmus-mesh/isthmus/pilot/translate/ambient"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

// Parse reads requests: a YAML or JSON list of {from, to, method, path, headers, identity, namespace}, or lines of the form
// "SOURCE DESTINATION[:PORT] [METHOD PATH] [name: value]", of which those that begin with # are comments. namespace is that of names that
// have none.
func Parse(data []byte, namespace string) ([]why.Question, error) {
	var out []why.Question
	text := bytes.TrimSpace(data)
	if first := firstLine(text); bytes.HasPrefix(first, []byte("-")) || bytes.HasPrefix(first, []byte("[")) {
		if err := yaml.UnmarshalStrict(text, &out); err != nil {
			return nil, fmt.Errorf("the list of requests: %w", err)
		}
	} else {
		scanner := bufio.NewScanner(bytes.NewReader(data))
		for n := 1; scanner.Scan(); n++ {
			line := strings.TrimSpace(scanner.Text())
			if line == "" || line[0] == '#' {
				continue
			}
			q, err := parseLine(line)
			if err != nil {
				return nil, fmt.Errorf("the list of requests, line %d: %w", n, err)
			}
			out = append(out, q)
		}
		if err := scanner.Err(); err != nil {
			return nil, fmt.Errorf("the list of requests: %w", err)
		}
	}
	for i := range out {
		if out[i].From == "" || out[i].To == "" {
			return nil, fmt.Errorf("the list of requests: entry %d has no from, or no to", i+1)
		}
		out[i].Namespace = cmp.Or(out[i].Namespace, namespace)
	}
	return out, nil
}

// firstLine is the first one that is no comment.
func firstLine(text []byte) []byte {
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return line
		}
	}
	return nil
}

// letters are what methods are made of.
const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func parseLine(line string) (why.Question, error) {
	words := strings.Fields(line)
	if len(words) < 2 {
		return why.Question{}, errors.New("it is SOURCE DESTINATION[:PORT] [METHOD PATH] [name: value]")
	}
	q := why.Question{From: words[0], To: words[1]}
	if len(words) > 2 {
		q.Method = words[2]
	}
	if len(words) > 3 {
		q.Path = words[3]
	}
	if len(words) > 4 {
		q.Headers = []string{strings.Join(words[4:], " ")}
	}
	if strings.Trim(q.Method, letters) != "" || q.Path != "" && q.Path[0] != '/' || len(q.Headers) > 0 && !strings.Contains(q.Headers[0], ":") {
		return q, fmt.Errorf("%q is not SOURCE DESTINATION[:PORT] [METHOD PATH] [name: value]", line)
	}
	return q, nil
}

// budget is how many requests are derived at most: as many as can be followed in some seconds.
const budget = 4000

// shape is what a request is like, apart from who sends it where.
type shape struct {
	method, path string
	headers      []string
}

func (s shape) key() string { return s.method + " " + s.path + " " + strings.Join(s.headers, ";") }

// derive makes requests to whatever a change may be about: from one caller of each identity, to every port of every service, of every shape
// that a route or a policy speaks of. cut is whether there would be more than can be followed.
func derive(scope *scope, models ...*why.Model) (out []why.Question, cut bool) {
	shapes := shapesOf(models)
	callers := callersOf(models)
	seen := map[string]bool{}
	type target struct {
		to, namespace, host string
		http                bool
	}
	var targets []target
	for _, m := range models {
		for _, s := range m.Mesh.Services() {
			if !scope.has(s) {
				continue
			}
			for _, p := range s.Proto.Ports {
				t := target{to: fmt.Sprintf("%s:%d", name(s, m.Mesh.Settings()), p.ServicePort), namespace: s.Proto.Namespace, host: s.Proto.Hostname, http: isHTTP(p)}
				if !seen[t.to] {
					seen[t.to] = true
					targets = append(targets, t)
				}
			}
		}
	}
	add := func(q why.Question) bool {
		if len(out) >= budget {
			cut = true
			return false
		}
		out = append(out, q)
		return true
	}
	for _, g := range gatewayQuestions(scope, models) {
		add(g)
	}
	perTarget := max(1, budget/max(1, len(targets)))
	for _, t := range targets {
		all := []shape{{}}
		if t.http {
			all = append([]shape{{method: "GET", path: "/"}}, shapes[t.host]...)
			all = append(all, shapes["ns "+t.namespace]...)
			all = append(all, shapes["*"]...)
		}
		n, asked := 0, map[string]bool{}
		for _, s := range all {
			if asked[s.key()] {
				continue
			}
			asked[s.key()] = true
			for _, c := range near(callers, t.namespace) {
				if n++; n > perTarget {
					cut = true
					break
				}
				if !add(why.Question{From: c, To: t.to, Method: s.method, Path: s.path, Headers: s.headers, Namespace: t.namespace}) {
					return out, cut
				}
			}
		}
	}
	return out, cut
}

func isHTTP(p *workload.Port) bool {
	switch p.GetAppProtocol() {
	case workload.AppProtocol_HTTP11, workload.AppProtocol_HTTP2, workload.AppProtocol_GRPC:
		return true
	}
	return false
}

// name is what people call a service.
func name(s *ambient.Service, mesh ambient.Mesh) string {
	return strings.TrimSuffix(s.Proto.Hostname, ".svc."+mesh.Domain)
}

// near are callers, those of the namespace first.
func near(callers []caller, namespace string) (out []string) {
	for _, own := range []bool{true, false} {
		for _, c := range callers {
			if (c.namespace == namespace) == own {
				out = append(out, c.name)
			}
		}
	}
	return out
}

type caller struct{ name, namespace string }

// callersOf finds one workload of each identity, and whether it is in the mesh; and the client that nobody knows.
func callersOf(models []*why.Model) []caller {
	found := map[string]caller{}
	for _, m := range models {
		m.EachPod(func(p *corev1.Pod) {
			if p.Labels["gateway.networking.k8s.io/gateway-name"] != "" || p.Spec.HostNetwork || p.Namespace == m.Mesh.Settings().RootNamespace || p.Namespace == "kube-system" {
				return
			}
			id := p.Namespace + "/" + cmp.Or(p.Spec.ServiceAccountName, "default") + "/" + p.Annotations[annotationRedirection]
			if _, ok := found[id]; ok {
				return
			}
			c := caller{p.Name + "." + p.Namespace, p.Namespace}
			if w := m.WorkloadOf(p); w != "" && w != p.Name {
				c.name = "deploy/" + w + "." + p.Namespace
			}
			found[id] = c
		})
	}
	var out []caller
	for _, id := range slices.Sorted(maps.Keys(found)) {
		out = append(out, found[id])
	}
	return append(out, caller{name: "outside"})
}

// shapesOf collects what routes match and policies speak of, by host, by "ns namespace", or for all.
func shapesOf(models []*why.Model) map[string][]shape {
	out := map[string][]shape{}
	add := func(key string, s shape) {
		if s.method == "" {
			s.method = "GET"
		}
		if s.path == "" {
			s.path = "/"
		}
		if !slices.ContainsFunc(out[key], func(have shape) bool { return have.key() == s.key() }) {
			out[key] = append(out[key], s)
		}
	}
	for _, m := range models {
		mesh := m.Mesh.Settings()
		m.EachHTTPRoute(func(r *gatewayv1.HTTPRoute) {
			for _, ref := range r.Spec.ParentRefs {
				if ref.Kind == nil || *ref.Kind != "Service" {
					continue
				}
				ns := r.Namespace
				if ref.Namespace != nil {
					ns = string(*ref.Namespace)
				}
				for _, s := range routeShapes(r) {
					add(mesh.Hostname(ns, string(ref.Name)), s)
				}
			}
		})
		m.EachVirtualService(func(vs *networkingv1.VirtualService) {
			for _, host := range vs.Spec.GetHosts() {
				if !strings.Contains(host, ".") {
					host = mesh.Hostname(vs.Namespace, host)
				}
				for _, s := range virtualServiceShapes(vs) {
					add(host, s)
				}
			}
		})
		m.EachOperation(func(namespace, method, path string) {
			key := "ns " + namespace
			if namespace == mesh.RootNamespace {
				key = "*"
			}
			add(key, shape{method: method, path: path})
		})
	}
	return out
}

func routeShapes(r *gatewayv1.HTTPRoute) (out []shape) {
	for _, rule := range r.Spec.Rules {
		for _, m := range rule.Matches {
			s := shape{}
			if m.Path != nil && m.Path.Value != nil && (m.Path.Type == nil || *m.Path.Type != gatewayv1.PathMatchRegularExpression) {
				s.path = *m.Path.Value
			}
			if m.Method != nil {
				s.method = string(*m.Method)
			}
			for _, h := range m.Headers {
				if h.Type == nil || *h.Type == gatewayv1.HeaderMatchExact {
					s.headers = append(s.headers, string(h.Name)+": "+h.Value)
				}
			}
			out = append(out, s)
		}
	}
	return out
}

func virtualServiceShapes(vs *networkingv1.VirtualService) (out []shape) {
	value := func(m *networkingapi.StringMatch) string { return cmp.Or(m.GetExact(), m.GetPrefix()) }
	for _, h := range vs.Spec.GetHttp() {
		for _, m := range h.GetMatch() {
			s := shape{method: value(m.GetMethod()), path: value(m.GetUri())}
			if s.path != "" && s.path[0] != '/' {
				s.path = ""
			}
			for _, k := range slices.Sorted(maps.Keys(m.GetHeaders())) {
				if v := value(m.GetHeaders()[k]); v != "" {
					s.headers = append(s.headers, k+": "+v)
				}
			}
			out = append(out, s)
		}
	}
	return out
}

// gatewayQuestions are requests of clients that come to gateways, of every host and shape that routes name.
func gatewayQuestions(scope *scope, models []*why.Model) (out []why.Question) {
	seen := map[string]bool{}
	for _, m := range models {
		m.EachHTTPRoute(func(r *gatewayv1.HTTPRoute) {
			for _, ref := range r.Spec.ParentRefs {
				key, ok := m.GatewayOf(ref, r.Namespace)
				if !ok || !scope.gateway(key) {
					continue
				}
				ns, name, _ := strings.Cut(key, "/")
				hosts := r.Spec.Hostnames
				if len(hosts) == 0 {
					hosts = []gatewayv1.Hostname{"example.com"}
				}
				for _, s := range append([]shape{{method: "GET", path: "/"}}, routeShapes(r)...) {
					for _, h := range hosts {
						q := why.Question{
							From: "outside", To: "gateway/" + name + "." + ns, Method: cmp.Or(s.method, "GET"), Path: cmp.Or(s.path, "/"),
							Headers: append([]string{"Host: " + strings.Replace(string(h), "*", "any", 1)}, s.headers...), Namespace: ns,
						}
						if k := fmt.Sprint(q); !seen[k] {
							seen[k] = true
							out = append(out, q)
						}
					}
				}
			}
		})
	}
	return out
}
