// Package tag has the commands that give names to revisions of the control plane.
//
// A tag is a Service beside the control plane with the labels istio.io/tag and istio.io/rev: namespaces and Gateways that name the tag
// are the business of that revision.
package tag

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

const (
	labelTag = "istio.io/tag"
	labelRev = "istio.io/rev"
	// defaultTag is that of what names no revision; who validates such objects is labelled too.
	defaultTag       = "default"
	defaultValidator = "istiod-default-validator"
)

func serviceKind() reach.Kind { return reach.Kind{Version: "v1", Name: "Service", Plural: "services"} }

func validatorKind() reach.Kind {
	return reach.Kind{
		Group: "admissionregistration.k8s.io", Version: "v1", Name: "ValidatingWebhookConfiguration", Plural: "validatingwebhookconfigurations", Cluster: true,
	}
}

// New returns the command.
func New(g *cli.Globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "tag", Short: "Give names to revisions of the control plane",
		Long: "Give names to revisions of the control plane. Namespaces and Gateways name the tag in their label istio.io/rev, and follow it when it\n" +
			"is given to another revision. What has no such label belongs to the tag \"default\".",
		Example: "  istioctl tag set prod --revision 1-31\n  istioctl tag list",
	}
	cmd.AddCommand(set(g), generate(g), list(g), remove(g))
	return cli.Group(cmd)
}

// flags of set and generate.
type flags struct {
	revision, webhook    string
	overwrite, yes, auto bool
}

func (f *flags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.StringVarP(&f.revision, "revision", "r", "", "revision that the tag names")
	s.BoolVar(&f.overwrite, "overwrite", false, "give the tag to the revision even if it names another")
	s.BoolVarP(&f.yes, "skip-confirmation", "y", false, "do not ask")
	s.StringVar(&f.webhook, "webhook-name", "", "not supported: there is no injection of sidecars that could be named")
	s.BoolVar(&f.auto, "auto-inject-namespaces", false, "not supported: there is no injection of sidecars")
}

func (f *flags) check(tag string) error {
	switch problems := validation.IsDNS1123Label(tag); {
	case f.webhook != "" || f.auto:
		return errors.New("--webhook-name, --auto-inject-namespaces: sidecars are not injected, so there is nothing to name or to add namespaces to")
	case f.revision == "":
		return errors.New("which revision: name it by --revision")
	case len(problems) > 0:
		return fmt.Errorf("tag %q: %s", tag, strings.Join(problems, "; "))
	}
	return nil
}

// start checks what was asked for, before a cluster is looked at.
func (f *flags) start(g *cli.Globals, tag string) (*reach.Mesh, error) {
	if err := f.check(tag); err != nil {
		return nil, err
	}
	return control(g)
}

// control is the cluster; a sandbox has one control plane only.
func control(g *cli.Globals) (*reach.Mesh, error) {
	mesh, err := g.Mesh()
	if err != nil {
		return nil, err
	}
	if _, ok := mesh.Kubernetes(); !ok {
		return nil, errors.New("a sandbox has one control plane, and no revisions")
	}
	return mesh, nil
}

// tags are the Services that are tags, by name.
func tags(ctx context.Context, g *cli.Globals, mesh *reach.Mesh) ([]unstructured.Unstructured, error) {
	all, err := mesh.List(ctx, serviceKind(), g.IstioNamespace)
	all = slices.DeleteFunc(all, func(o unstructured.Unstructured) bool { return o.GetLabels()[labelTag] == "" })
	slices.SortFunc(all, func(a, b unstructured.Unstructured) int {
		return cmp.Compare(a.GetLabels()[labelTag], b.GetLabels()[labelTag])
	})
	return all, err
}

// service is the tag as an object, made like the Service of the revision.
func (f *flags) service(ctx context.Context, g *cli.Globals, mesh *reach.Mesh, tag string) (*unstructured.Unstructured, error) {
	all, err := mesh.List(ctx, serviceKind(), g.IstioNamespace)
	if err != nil {
		return nil, err
	}
	var known []string
	for _, o := range all {
		labels := o.GetLabels()
		if labels["app"] != "istiod" || labels[labelTag] != "" || labels[labelRev] == "" {
			continue
		}
		if labels[labelRev] != f.revision {
			known = append(known, labels[labelRev])
			continue
		}
		spec := map[string]any{}
		for _, field := range []string{"ports", "selector"} {
			if v, ok, _ := unstructured.NestedFieldCopy(o.Object, "spec", field); ok {
				spec[field] = v
			}
		}
		ports, _ := spec["ports"].([]any)
		for _, p := range ports {
			if port, ok := p.(map[string]any); ok {
				delete(port, "nodePort")
			}
		}
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Service",
			"metadata": map[string]any{
				"name": "istiod-revision-tag-" + tag, "namespace": g.IstioNamespace,
				"labels": map[string]any{"app": "istiod", labelTag: tag, labelRev: f.revision},
			},
			"spec": spec,
		}}, nil
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("no control plane is installed in namespace %s", g.IstioNamespace)
	}
	slices.Sort(known)
	return nil, fmt.Errorf("there is no revision %s in namespace %s; there is %s", f.revision, g.IstioNamespace, strings.Join(known, ", "))
}

func generate(g *cli.Globals) *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use: "generate TAG", Short: "Print a tag as YAML", Args: cobra.ExactArgs(1),
		Example: "  istioctl tag generate prod --revision 1-31 | kubectl apply -f -",
		RunE: func(cmd *cobra.Command, args []string) error {
			mesh, err := f.start(g, args[0])
			if err != nil {
				return err
			}
			o, err := f.service(cmd.Context(), g, mesh, args[0])
			if err != nil {
				return err
			}
			return cli.Encode(cmd.OutOrStdout(), cli.YAML, o.Object)
		},
	}
	f.add(cmd)
	return cmd
}

func set(g *cli.Globals) *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use: "set TAG", Short: "Give a tag to a revision", Args: cobra.ExactArgs(1),
		Example: "  istioctl tag set prod --revision 1-31\n  istioctl tag set prod --revision 1-32 --overwrite",
		RunE: func(cmd *cobra.Command, args []string) error {
			mesh, err := f.start(g, args[0])
			if err != nil {
				return err
			}
			return f.set(cmd, g, mesh, args[0])
		},
	}
	f.add(cmd)
	return cmd
}

func (f *flags) set(cmd *cobra.Command, g *cli.Globals, mesh *reach.Mesh, tag string) error {
	ctx := cmd.Context()
	o, err := f.service(ctx, g, mesh, tag)
	if err != nil {
		return err
	}
	old, err := mesh.Read(ctx, serviceKind(), g.IstioNamespace, o.GetName())
	switch {
	case errors.Is(err, reach.ErrNotFound):
	case err != nil:
		return err
	case old.GetLabels()[labelTag] != tag:
		return fmt.Errorf("service %s/%s is there and no tag", g.IstioNamespace, o.GetName())
	case old.GetLabels()[labelRev] != f.revision && !f.overwrite:
		return fmt.Errorf("tag %s names revision %s already; give it to %s by --overwrite", tag, old.GetLabels()[labelRev], f.revision)
	}
	if err := mesh.Apply(ctx, serviceKind(), o); err != nil {
		return err
	}
	if tag == defaultTag {
		err := mesh.Label(ctx, validatorKind(), "", defaultValidator, map[string]*string{labelRev: &f.revision})
		if err != nil && !errors.Is(err, reach.ErrNotFound) {
			return err
		}
	}
	fmt.Fprintf(cmd.OutOrStdout(), "Revision tag %q created, referencing control plane revision %q. To use it: kubectl label namespace NAMESPACE %s=%s\n", tag, f.revision, labelRev, tag)
	return nil
}

// users are the namespaces that name a tag.
func users(ctx context.Context, mesh *reach.Mesh) (map[string][]string, error) {
	all, err := mesh.List(ctx, reach.Namespace(), "")
	out := map[string][]string{}
	for _, o := range all {
		if tag := o.GetLabels()[labelRev]; tag != "" {
			out[tag] = append(out[tag], o.GetName())
		}
	}
	return out, err
}

// shown is a tag as it is printed.
type shown struct {
	Tag        string   `json:"tag"`
	Revision   string   `json:"revision"`
	Namespaces []string `json:"namespaces"`
}

func list(g *cli.Globals) *cobra.Command {
	var output cli.Output
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "Show tags", Args: cobra.NoArgs,
		Example: "  istioctl tag list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.Check(); err != nil {
				return err
			}
			mesh, err := control(g)
			if err != nil {
				return err
			}
			all, err := tags(cmd.Context(), g, mesh)
			if err != nil {
				return err
			}
			by, err := users(cmd.Context(), mesh)
			if err != nil {
				return err
			}
			t := &dump.Table{Columns: []string{"TAG", "REVISION", "NAMESPACES"}, Gap: 1}
			whole := []shown{}
			for _, o := range all {
				one := shown{o.GetLabels()[labelTag], o.GetLabels()[labelRev], append([]string{}, by[o.GetLabels()[labelTag]]...)}
				whole = append(whole, one)
				t.Rows = append(t.Rows, []string{one.Tag, one.Revision, strings.Join(one.Namespaces, ",")})
			}
			return output.Print(cmd.OutOrStdout(), t, whole)
		},
	}
	output.Add(cmd.Flags(), cli.Text)
	return cmd
}

func remove(g *cli.Globals) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "remove TAG", Short: "Take a tag away", Args: cobra.ExactArgs(1),
		Example: "  istioctl tag remove prod",
		RunE: func(cmd *cobra.Command, args []string) error {
			mesh, err := control(g)
			if err != nil {
				return err
			}
			all, err := tags(cmd.Context(), g, mesh)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(all, func(o unstructured.Unstructured) bool { return o.GetLabels()[labelTag] == args[0] })
			if i < 0 {
				return fmt.Errorf("there is no tag %s in namespace %s; see istioctl tag list", args[0], g.IstioNamespace)
			}
			by, err := users(cmd.Context(), mesh)
			if err != nil {
				return err
			}
			if names := by[args[0]]; len(names) > 0 && !yes &&
				!cli.Confirm(cmd.InOrStdin(), cmd.OutOrStdout(), fmt.Sprintf("Namespaces that name tag %s will have no control plane: %s. Proceed?", args[0], strings.Join(names, ", "))) {
				fmt.Fprintln(cmd.OutOrStdout(), "Cancelled.")
				return nil
			}
			if err := mesh.Delete(cmd.Context(), serviceKind(), g.IstioNamespace, all[i].GetName()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Revision tag %s removed\n", args[0])
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "skip-confirmation", "y", false, "do not ask")
	return cmd
}
