package predict

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/why"
	"github.com/isthmus-mesh/isthmus/pilot/simulate"
)

// Resource is a difference in what a proxy is sent.
type Resource struct {
	Type   string `json:"type"`
	Name   string `json:"name"`
	Change string `json:"change"` // added, removed or changed
	// Fields that differ, each as path: before → after.
	Fields []string `json:"fields,omitempty"`
	// More is how many further ones there are.
	More int `json:"more,omitempty"`
}

// Proxy is what changes for a proxy.
type Proxy struct {
	Proxy     string     `json:"proxy"`
	Resources []Resource `json:"resources"`
	proxy     simulate.Proxy
}

// maxFields bounds what is told of one resource.
const maxFields = 8

// compare finds the differences between two lists of resources.
func compare(before, after []simulate.Resource) []Resource {
	old := map[string]simulate.Resource{}
	for _, r := range before {
		old[r.Type+"\x00"+r.Name] = r
	}
	var out []Resource
	for _, r := range after {
		k := r.Type + "\x00" + r.Name
		was, existed := old[k]
		delete(old, k)
		switch {
		case !existed:
			out = append(out, Resource{Type: short(r.Type), Name: r.Name, Change: "added"})
		case !bytes.Equal(was.Any.GetValue(), r.Any.GetValue()):
			d := Resource{Type: short(r.Type), Name: r.Name, Change: "changed", Fields: fields(was.Any, r.Any)}
			if len(d.Fields) > maxFields {
				d.More = len(d.Fields) - maxFields
				d.Fields = d.Fields[:maxFields]
			}
			out = append(out, d)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(old)) {
		out = append(out, Resource{Type: short(old[k].Type), Name: old[k].Name, Change: "removed"})
	}
	return out
}

// short is the name of a type without its package.
func short(url string) string { return url[strings.LastIndexAny(url, "./")+1:] }

// proxies are all that Envoy's resources are made for, in either state.
func proxies(models ...*why.Model) []simulate.Proxy {
	found := map[string]simulate.Proxy{}
	for _, m := range models {
		labels := map[string]map[string]string{}
		classic := m.ClassicSelectors()
		m.EachPod(func(p *corev1.Pod) {
			if name := p.Labels["gateway.networking.k8s.io/gateway-name"]; name != "" {
				labels[p.Namespace+"/"+name] = p.Labels
				return
			}
			for _, selector := range classic {
				if matches(selector, p.Labels) {
					r := simulate.Proxy{Kind: simulate.Router, Namespace: p.Namespace, Labels: p.Labels}
					found[r.String()+" "+p.Labels["app"]] = r
				}
			}
		})
		m.EachGateway(func(gw *gatewayv1.Gateway) {
			key := gw.Namespace + "/" + gw.Name
			p := simulate.Proxy{Kind: simulate.Router, Namespace: gw.Namespace, Gateway: gw.Name, Labels: labels[key]}
			if m.IsWaypoint(key) {
				p = simulate.Proxy{Kind: simulate.Waypoint, Namespace: gw.Namespace, Gateway: gw.Name}
			}
			if have, ok := found[p.String()]; !ok || have.Labels == nil {
				found[p.String()] = p
			}
		})
	}
	var out []simulate.Proxy
	for _, k := range slices.Sorted(maps.Keys(found)) {
		out = append(out, found[k])
	}
	return out
}

func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return len(selector) > 0
}

// resources are the differences for every proxy; those without any are left out.
func resources(before, after *why.Model) []Proxy {
	var out []Proxy
	oldAddresses, oldPolicies := before.Mesh.Ambient()
	newAddresses, newPolicies := after.Mesh.Ambient()
	if d := append(compare(oldAddresses, newAddresses), compare(oldPolicies, newPolicies)...); len(d) > 0 {
		out = append(out, Proxy{Proxy: "ztunnel (every one)", Resources: d})
	}
	for _, p := range proxies(before, after) {
		d := compare(before.Mesh.Proxy(p), after.Mesh.Proxy(p))
		before.Mesh.Release(p)
		after.Mesh.Release(p)
		if len(d) > 0 {
			out = append(out, Proxy{Proxy: p.String(), Resources: d, proxy: p})
		}
	}
	return out
}
