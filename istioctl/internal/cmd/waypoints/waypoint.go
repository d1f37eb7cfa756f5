// Package waypoints has the commands that make waypoints, take them away, and show them.
package waypoints

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
)

// What the control plane knows waypoints and their users by.
const (
	className    = "istio-waypoint"
	defaultName  = "waypoint"
	hbonePort    = 15008
	labelUse     = "istio.io/use-waypoint"
	labelFor     = "istio.io/waypoint-for"
	labelRev     = "istio.io/rev"
	labelAmbient = "istio.io/dataplane-mode"
)

// New returns the command.
func New(g *cli.Globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "waypoint", Short: "Make, show and delete waypoints, the L7 proxies of a namespace",
		Example: "  istioctl waypoint apply --namespace default --enroll-namespace --wait\n  istioctl waypoint list -A",
	}
	cmd.AddCommand(generate(g), apply(g), remove(g), list(g), status(g))
	return cli.Group(cmd)
}

// spec is the waypoint that flags describe.
type spec struct {
	name, traffic, revision string
	account                 string
}

func (s *spec) add(f *pflag.FlagSet) {
	f.StringVar(&s.name, "name", defaultName, "name of the waypoint")
	f.StringVar(&s.traffic, "for", "", "what traffic goes through it: service, workload, all or none")
	f.StringVarP(&s.revision, "revision", "r", "", "revision of the control plane that runs it")
	f.StringVarP(&s.account, "service-account", "s", "", "")
	_ = f.MarkHidden("service-account")
}

// check refuses what makes no waypoint.
func (s *spec) check() error {
	switch {
	case s.account != "":
		return errors.New("--service-account: waypoints of one service account were removed from Istio; a waypoint serves a namespace, " +
			"or the services and workloads that are labelled with " + labelUse)
	case s.name == "":
		return errors.New("--name is empty")
	case s.name == "none":
		return fmt.Errorf("--name none: as the value of %s that means no waypoint; choose another", labelUse)
	}
	switch s.traffic {
	case "", "service", "workload", "all", "none":
		return nil
	}
	return fmt.Errorf("--for %q is none of service, workload, all, none", s.traffic)
}

// gateway is the object. The namespace may be empty.
func (s *spec) gateway(namespace string) *unstructured.Unstructured {
	metadata := map[string]any{"name": s.name}
	if namespace != "" {
		metadata["namespace"] = namespace
	}
	labels := map[string]any{}
	if s.traffic != "" {
		labels[labelFor] = s.traffic
	}
	if s.revision != "" {
		labels[labelRev] = s.revision
	}
	if len(labels) > 0 {
		metadata["labels"] = labels
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata,
		"spec": map[string]any{
			"gatewayClassName": className,
			"listeners":        []any{map[string]any{"name": "mesh", "port": int64(hbonePort), "protocol": "HBONE"}},
		},
	}}
}

func generate(g *cli.Globals) *cobra.Command {
	s := &spec{}
	cmd := &cobra.Command{
		Use: "generate", Short: "Print a waypoint as YAML", Args: cobra.NoArgs,
		Example: "  istioctl waypoint generate --for all --namespace default | kubectl apply -f -",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.check(); err != nil {
				return err
			}
			return cli.Encode(cmd.OutOrStdout(), cli.YAML, s.gateway(g.Namespace).Object)
		},
	}
	s.add(cmd.Flags())
	return cmd
}

// isWaypoint tells waypoints from other gateways.
func isWaypoint(o *unstructured.Unstructured) bool {
	class, _, _ := unstructured.NestedString(o.Object, "spec", "gatewayClassName")
	return class == className
}

func revision(o *unstructured.Unstructured) string { return cmp.Or(o.GetLabels()[labelRev], "default") }

// condition is one of the object's status.
type condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
	// generation is what it was said of.
	generation int64
}

func conditions(o *unstructured.Unstructured) []condition {
	all, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	var out []condition
	for _, raw := range all {
		m, ok := raw.(map[string]any)
		if !ok {
			continue
		}
		text := func(key string) string { s, _ := m[key].(string); return s }
		c := condition{Type: text("type"), Status: text("status"), Reason: text("reason"), Message: text("message")}
		switch n := m["observedGeneration"].(type) {
		case int64:
			c.generation = n
		case float64:
			c.generation = int64(n)
		}
		out = append(out, c)
	}
	return out
}

// programmed returns whether a waypoint is there as it was asked for, and the condition that says so.
func programmed(o *unstructured.Unstructured) (bool, condition) {
	for _, c := range conditions(o) {
		if c.Type == "Programmed" {
			old := c.generation != 0 && c.generation < o.GetGeneration()
			return c.Status == "True" && !old, c
		}
	}
	return false, condition{Type: "Programmed", Status: "Unknown", Reason: "Pending", Message: "the control plane has not said anything yet"}
}
