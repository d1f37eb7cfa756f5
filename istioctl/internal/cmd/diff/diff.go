// Package diff has the command that says what a change would do before it is made.
package diff

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/predict"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/why"
)

type flags struct {
	g        *cli.Globals
	output   cli.Output
	files    []string
	base     []string
	requests string
	remove   bool
	timeout  time.Duration
}

// New returns the command.
func New(g *cli.Globals) *cobra.Command {
	f := &flags{g: g}
	cmd := &cobra.Command{
		Use: "diff -f FILE", Short: "Say what a change would do to proxies and requests, before it is made",
		Long: "Say what a change would do, before it is made: which resources each proxy would be sent, and which requests would fare otherwise. It is\n" +
			"worked out by the code of the control plane and of the proxies; nothing is written anywhere.\n\n" +
			"Requests are followed before and after: those of --requests, or else from one caller of each identity to every port of the services that\n" +
			"the change may be about, of every method and path that routes and policies speak of. The file is a YAML list of {from, to, method, path,\n" +
			"headers, identity}, or has lines as istioctl why takes them: SOURCE DESTINATION[:PORT] [METHOD PATH] [name: value].\n\n" +
			"The exit code is 0 when nothing changes, 1 when something does, and 2 on an error.",
		Example: "  istioctl diff -f new-policy.yaml\n" +
			"  istioctl diff -f old-route.yaml --delete\n" +
			"  istioctl diff --base ./manifests -f change.yaml --requests requests.txt -o json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			changes, err := f.run(cmd)
			switch {
			case err != nil:
				return &cli.ExitError{Code: 2, Err: err}
			case changes:
				return &cli.ExitError{Code: 1}
			}
			return nil
		},
	}
	f.output.Add(cmd.Flags(), cli.Text)
	cmd.Flags().StringSliceVarP(&f.files, "filename", "f", nil, "file or directory of manifests that are to be applied, - for the standard input; may be repeated")
	cmd.Flags().StringSliceVar(&f.base, "base", nil, "file or directory of manifests to change instead of a mesh; may be repeated")
	cmd.Flags().StringVar(&f.requests, "requests", "", "file with the requests to follow, - for the standard input")
	cmd.Flags().BoolVar(&f.remove, "delete", false, "the objects are to be deleted instead")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 2*time.Minute, "how long all of it may take")
	return cmd
}

func (f *flags) run(cmd *cobra.Command) (changes bool, err error) {
	if err := f.output.Check(); err != nil {
		return false, err
	}
	if len(f.files) == 0 {
		return false, errors.New("what is to be changed: name its manifests by --filename")
	}
	change, err := why.ReadFiles(f.files, cmd.InOrStdin())
	if err != nil {
		return false, err
	}
	if len(change.Objects)+len(change.NetworkPolicies) == 0 {
		for _, n := range change.Notes {
			fmt.Fprintln(cmd.ErrOrStderr(), n)
		}
		return false, errors.New("the manifests have no objects that the mesh reads")
	}
	before, err := f.before(cmd)
	if err != nil {
		return false, err
	}
	var requests []why.Question
	if f.requests != "" {
		data, err := cli.ReadFile(f.requests, cmd.InOrStdin())
		if err != nil {
			return false, err
		}
		if requests, err = predict.Parse(data, f.g.Namespace); err != nil {
			return false, fmt.Errorf("%s: %w", f.requests, err)
		}
	}
	p, err := predict.Predict(before, predict.Apply(before, change, f.remove), why.Options{}, requests)
	if err != nil {
		return false, err
	}
	if f.output.IsTable() {
		p.Write(cmd.OutOrStdout())
		return p.Changes(), nil
	}
	return p.Changes(), cli.Encode(cmd.OutOrStdout(), f.output.Format, p)
}

// before is the world as it is.
func (f *flags) before(cmd *cobra.Command) (*why.World, error) {
	if len(f.base) > 0 {
		return why.ReadFiles(f.base, cmd.InOrStdin())
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	mesh, err := f.g.Mesh()
	if err != nil {
		return nil, fmt.Errorf("%w, or manifests by --base", err)
	}
	return why.ReadMesh(ctx, mesh, f.g.IstioNamespace)
}
