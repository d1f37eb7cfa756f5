// Package selftest looks whether a mesh can be installed, and whether one that is installed is whole, and says what to do about what is
// not.
package selftest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// State is what came of a check.
type State string

// The states, from good to bad.
const (
	Good    State = "ok"
	Skipped State = "skipped"
	Warning State = "warning"
	Bad     State = "error"
)

// Result is what one check found.
type Result struct {
	Check  string `json:"check"`
	State  State  `json:"state"`
	Detail string `json:"detail,omitempty"`
	// Remedy is what to do, where something is to be done.
	Remedy string `json:"remedy,omitempty"`
}

// Subject is what is looked at.
type Subject struct {
	Mesh           *reach.Mesh
	IstioNamespace string
	// Version of this program.
	Version string
	Now     time.Time
	// Timeout bounds each check.
	Timeout time.Duration

	nodes []*corev1.Node
	once  sync.Once
	err   error
}

const nameAPI = "Kubernetes API"

// Check looks at one thing.
type Check struct {
	Name string
	run  func(context.Context, *Subject) []Result
}

// Before are the checks that an installation depends on, After those of one that is there.
func Before() []Check {
	return []Check{
		{nameAPI, apiServer},
		{"permissions to install", rightsToInstall},
		{"Gateway API", gatewayAPI},
		{"nodes", kernels},
		{"clocks", clocks},
		{"network policies", networkPolicies},
	}
}

// Since are the checks of what there is against what has changed since a version of Istio, by its minor.
func Since(minor int) []Check {
	return []Check{{"changes", func(ctx context.Context, s *Subject) []Result { return changes(ctx, s, minor) }}}
}

// Data are the checks of what runs beside the control plane.
func Data() []Check { return []Check{{"network policies", networkPolicies}, {"enrolment", enrolment}} }

// After are the checks of a mesh that runs.
func After() []Check {
	return []Check{
		{nameAPI, apiServer},
		{"permissions", rights},
		{"definitions", definitions},
		{"Gateway API", gatewayAPI},
		{"istiod", istiod},
		{"versions", versions},
		{"configuration", problems},
		{"webhooks", webhooks},
		{"CNI agents", agents},
		{"ztunnels", ztunnels},
		{"proxies", proxies},
		{"root certificate", rootCertificate},
		{"certificates", certificates},
		{"enrolment", enrolment},
		{"waypoints", waypoints},
		{"clocks", clocks},
		{"network policies", networkPolicies},
	}
}

// Run runs checks one after the other, and hands over what each found.
func (s *Subject) Run(ctx context.Context, checks []Check, report func(Result)) {
	gone := false // the API: what else is asked of it is no news
	for _, c := range checks {
		if gone {
			return
		}
		bounded, cancel := context.WithTimeout(ctx, s.Timeout)
		for _, r := range c.run(bounded, s) {
			r.Check = c.Name
			gone = c.Name == nameAPI && r.State == Bad
			report(r)
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
	}
}

func good(format string, args ...any) Result {
	return Result{State: Good, Detail: fmt.Sprintf(format, args...)}
}

func bad(remedy, format string, args ...any) Result {
	return Result{State: Bad, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

func warning(remedy, format string, args ...any) Result {
	return Result{State: Warning, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

func one(r Result) []Result { return []Result{r} }

// failed is a check that could not be made.
func failed(err error) []Result {
	return one(bad("Look whether you reach the mesh, and may look at this (kubectl auth can-i)", "%v", err))
}

// noCluster is what a sandbox need not have.
func noCluster() []Result { return one(Result{State: Skipped, Detail: "a sandbox has none"}) }

// kind finds a kind that can be read.
func kind(name string) kube.Kind {
	all := kube.Kinds()
	return all[slices.IndexFunc(all, func(k kube.Kind) bool { return k.GVK.Kind == name && k.GVK.Group != "networking.istio.io" })]
}

// all hands over all objects of a kind that can be read.
func all[T kube.Object](ctx context.Context, s *Subject, name string, take func(T)) error {
	return s.Mesh.Each(ctx, kind(name), "", func(o kube.Object, _ []kube.ObjectError) {
		if typed, ok := o.(T); ok {
			take(typed)
		}
	})
}

// theNodes are the nodes on which pods can run; read once.
func (s *Subject) theNodes(ctx context.Context) ([]*corev1.Node, error) {
	s.once.Do(func() {
		s.err = all(ctx, s, "Node", func(n *corev1.Node) { s.nodes = append(s.nodes, n) })
	})
	return s.nodes, s.err
}

// few joins the first of many names.
func few(names []string) string {
	const most = 5
	slices.Sort(names)
	out := ""
	for i, name := range names {
		if i == most {
			return fmt.Sprintf("%s and %d more", out, len(names)-most)
		}
		if i > 0 {
			out += ", "
		}
		out += name
	}
	return out
}
