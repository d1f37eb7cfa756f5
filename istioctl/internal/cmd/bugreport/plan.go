package bugreport

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/redact"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/selftest"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// maxLog is how much of the end of a log is kept, in bytes.
const maxLog = 8 << 20

// item is one file of the archive.
type item struct {
	name string
	make func(context.Context) ([]byte, error)
}

// plan is what is to be collected.
func (c *collector) plan(ctx context.Context) ([]item, error) {
	out := []item{
		{"versions.json", c.versions},
		{"check.txt", c.selftest},
	}
	for _, k := range kube.Kinds() {
		if k.GVK.Kind == "ReplicaSet" || k.GVK.Kind == "EndpointSlice" {
			continue
		}
		name := "objects/" + strings.ToLower(k.GVK.Kind)
		if k.GVK.Group != "" {
			name += "." + k.GVK.Group
		}
		out = append(out, item{name + ".yaml", func(ctx context.Context) ([]byte, error) { return c.objects(ctx, k) }})
	}
	if _, ok := c.mesh.Kubernetes(); ok {
		out = append(out, item{"events.yaml", c.events}, c.listing("objects/validatingwebhookconfigurations.yaml", reach.Kind{
			Group: "admissionregistration.k8s.io", Version: "v1", Name: "ValidatingWebhookConfiguration", Plural: "validatingwebhookconfigurations", Cluster: true,
		}), c.listing("objects/networkpolicies.yaml", reach.Kind{Group: "networking.k8s.io", Version: "v1", Name: "NetworkPolicy", Plural: "networkpolicies"}))
	}
	var found []reach.Pod
	for _, n := range c.flags.namespaces {
		pods, err := c.mesh.Pods(ctx, n, "")
		if err != nil {
			return nil, err
		}
		found = append(found, pods...)
	}
	gateways, err := c.mesh.Pods(ctx, "", "gateway.networking.k8s.io/gateway-name")
	if err != nil {
		return nil, err
	}
	agents, err := c.mesh.Pods(ctx, "", "k8s-app=istio-cni-node")
	if err != nil {
		return nil, err
	}
	found = append(append(found, gateways...), agents...)
	slices.SortFunc(found, func(a, b reach.Pod) int { return cmp.Compare(a.String(), b.String()) })
	found = slices.CompactFunc(found, func(a, b reach.Pod) bool { return a.String() == b.String() })
	for _, p := range found {
		if c.flags.wantsPod(p) {
			out = append(out, c.of(p)...)
		}
	}
	return out, nil
}

// of are the files of a pod of the mesh.
func (c *collector) of(p reach.Pod) []item {
	dir := fmt.Sprintf("%s/%s/%s/", place(p), p.Namespace, p.Name)
	ask := func(file string, port int, path string) item {
		return item{dir + file, func(ctx context.Context) ([]byte, error) {
			data, err := c.mesh.Get(ctx, p, port, path)
			return clean(data), err
		}}
	}
	out := []item{
		{dir + "log.txt", func(ctx context.Context) ([]byte, error) { return c.log(ctx, p, false) }},
		{dir + "log-before.txt", func(ctx context.Context) ([]byte, error) { return c.log(ctx, p, true) }},
	}
	switch place(p) {
	case "istiod":
		for _, page := range []string{"syncz", "configz", "statusz", "problemz", "registryz", "endpointz", "ambientz", "authorizationz", "connections", "mesh"} {
			out = append(out, ask("debug/"+page+".json", reach.DebugPort, "/debug/"+page))
		}
		return append(out, ask("metrics.txt", reach.MonitoringPort, "/metrics"), ask("version.json", reach.MonitoringPort, "/version"))
	case "cni":
		return append(out, ask("status.json", 8000, "/status"), ask("metrics.txt", 15014, "/metrics"))
	case "ztunnel":
		return append(out, ask("config_dump.json", reach.AdminPort, "/config_dump"), ask("metrics.txt", 15020, "/stats/prometheus"))
	case "proxies":
		return append(out, ask("config_dump.json", reach.AdminPort, "/config_dump?include_eds"), ask("clusters.json", reach.AdminPort, "/clusters?format=json"),
			ask("metrics.txt", 15020, "/stats/prometheus"))
	}
	return out
}

// place is the directory for a pod's files.
func place(p reach.Pod) string {
	switch {
	case p.Labels["app"] == "istiod":
		return "istiod"
	case p.Labels["app"] == "ztunnel":
		return "ztunnel"
	case p.Labels["k8s-app"] == "istio-cni-node":
		return "cni"
	case p.Labels["gateway.networking.k8s.io/gateway-name"] != "", p.Labels["istio"] == "ingressgateway", p.Labels["istio"] == "egressgateway":
		return "proxies"
	}
	return "other"
}

// clean takes secrets out of an answer, whether it is JSON or not.
func clean(data []byte) []byte {
	if out, err := dump.Redact(data); err == nil {
		data = out
	}
	return []byte(redact.Text(string(data)))
}

func (c *collector) versions(ctx context.Context) ([]byte, error) {
	out := map[string]any{"istioctl": c.flags.build, "collected": time.Now().UTC().Format(time.RFC3339)}
	if client, ok := c.mesh.Kubernetes(); ok {
		v, err := client.Discovery().ServerVersion()
		if err != nil {
			return nil, err
		}
		out["kubernetes"] = v
	}
	return json.MarshalIndent(out, "", "  ")
}

func (c *collector) selftest(ctx context.Context) ([]byte, error) {
	var out bytes.Buffer
	subject := &selftest.Subject{Mesh: c.mesh, IstioNamespace: c.flags.namespaces[0], Version: c.flags.build.Version, Now: time.Now(), Timeout: time.Minute}
	subject.Run(ctx, selftest.After(), func(r selftest.Result) {
		fmt.Fprintf(&out, "%s %s: %s\n", r.State, r.Check, r.Detail)
	})
	return []byte(redact.Text(out.String())), nil
}

// objects are those of a kind, without secrets. Of Secrets and ConfigMaps only the mesh's are collected, and of Secrets no values.
func (c *collector) objects(ctx context.Context, k kube.Kind) ([]byte, error) {
	var out bytes.Buffer
	own := k.GVK.Kind == "Secret" || k.GVK.Kind == "ConfigMap"
	err := c.mesh.Each(ctx, k, "", func(o kube.Object, _ []kube.ObjectError) {
		if o == nil || out.Len() > c.flags.megabytes<<20 {
			return
		}
		if namespace := o.GetNamespace(); namespace != "" && !c.flags.wantsNamespace(namespace) || own && !slices.Contains(c.flags.namespaces, namespace) {
			return
		}
		data, err := json.Marshal(o)
		if err != nil {
			return
		}
		var tree map[string]any
		if json.Unmarshal(data, &tree) == nil {
			document(&out, tree)
		}
	})
	if errors.Is(err, reach.ErrNotFound) {
		return nil, nil // the cluster does not know the kind
	}
	return out.Bytes(), err
}

func document(out *bytes.Buffer, tree map[string]any) {
	redact.Object(tree)
	if data, err := yaml.Marshal(tree); err == nil {
		out.WriteString("---\n")
		out.Write(data)
	}
}

// listing are the objects of a kind that has no Go type here.
func (c *collector) listing(name string, k reach.Kind) item {
	return item{name, func(ctx context.Context) ([]byte, error) {
		all, err := c.mesh.List(ctx, k, "")
		return c.documents(all), err
	}}
}

func (c *collector) documents(all []unstructured.Unstructured) []byte {
	var out bytes.Buffer
	for i := range all {
		if namespace := all[i].GetNamespace(); namespace == "" || c.flags.wantsNamespace(namespace) {
			document(&out, all[i].Object)
		}
	}
	return out.Bytes()
}

func (c *collector) events(ctx context.Context) ([]byte, error) {
	all, err := c.mesh.List(ctx, reach.Kind{Version: "v1", Name: "Event", Plural: "events"}, "")
	all = slices.DeleteFunc(all, func(o unstructured.Unstructured) bool {
		text, _, _ := unstructured.NestedString(o.Object, "lastTimestamp")
		at, problem := time.Parse(time.RFC3339, text)
		return problem == nil && (at.Before(c.flags.from) || at.After(c.flags.to))
	})
	return c.documents(all), err
}

// log is the end of a pod's log.
func (c *collector) log(ctx context.Context, p reach.Pod, before bool) ([]byte, error) {
	in, err := c.mesh.Logs(ctx, p, reach.Logs{Since: c.flags.from, Previous: before})
	if err != nil {
		if before {
			err = nil // it was never restarted
		}
		return nil, err
	}
	defer in.Close()
	tail, err := end(in)
	if err != nil && len(tail) == 0 {
		return nil, err
	}
	text := redact.Log(string(tail))
	c.look(p, text)
	return []byte(text), nil
}

// end returns the last bytes of a stream, from the begin of a line.
func end(in io.Reader) ([]byte, error) {
	const most = maxLog
	var kept []byte
	buffer := make([]byte, 64<<10)
	for {
		n, err := in.Read(buffer)
		kept = append(kept, buffer[:n]...)
		if len(kept) > 2*most {
			kept = append(kept[:0], kept[len(kept)-most:]...)
		}
		if err != nil {
			if len(kept) > most {
				kept = kept[len(kept)-most:]
				if i := bytes.IndexByte(kept, '\n'); i >= 0 {
					kept = kept[i+1:]
				}
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return kept, err
		}
	}
}
