// Package validate has the command that checks files before they are applied.
package validate

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/analyzers"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis/collect"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/crdschema"
	"github.com/isthmus-mesh/isthmus/operator/crds"
)

type flags struct {
	g           *cli.Globals
	files       []string
	referential bool
}

// New returns the command.
func New(g *cli.Globals) *cobra.Command {
	f := &flags{g: g}
	cmd := &cobra.Command{
		Use: "validate -f FILE|DIRECTORY|- [-f …]", Aliases: []string{"v"}, Short: "Check the objects of files as a cluster does before it takes them",
		Long: "Check the objects of files as the API server and the control plane do before they take them: that they have the fields of their\n" +
			"kind, that the values are what its schema and its rules allow, and make sense. Nothing is asked of a cluster. Each problem is told with the object, its field and the line; the exit code is 1\n" +
			"when there are any. What depends on other objects is for istioctl analyze, or, among the files, for --referential.",
		Example: "  istioctl validate -f bookinfo-gateway.yaml\n  istioctl validate -f manifests/ -x\n  kubectl get virtualservices -o yaml | istioctl validate -f -",
		Args:    cobra.ArbitraryArgs,
		RunE:    f.run,
	}
	cmd.Flags().StringSliceVarP(&f.files, "filename", "f", nil, "file, directory, or - for the standard input; may be repeated")
	cmd.Flags().BoolVarP(&f.referential, "referential", "x", false, "check, too, that what the objects refer to is in the files")
	return cmd
}

// finding is one problem of a file.
type finding struct {
	file    string
	line    int
	text    string
	warning bool
}

func (f *flags) run(cmd *cobra.Command, args []string) error {
	names := slices.Concat(f.files, args)
	if len(names) == 0 {
		return errors.New("which files? Name them by --filename, as in 'istioctl validate -f bookinfo-gateway.yaml', or - for the standard input")
	}
	files, err := collect.Files(names, cmd.InOrStdin(), func(name string) {
		fmt.Fprintf(cmd.ErrOrStderr(), "Skipping file %s, recognized file extensions are: %v\n", name, collect.Extensions())
	})
	if err != nil {
		return err
	}
	in := analysis.Input{Resources: collect.Assumed(f.g.IstioNamespace), IstioNamespace: f.g.IstioNamespace}
	byFile := map[string][]finding{}
	schemas := crdschema.New(crds.Istio, crds.Isthmus, crds.GatewayAPI)
	for _, file := range files {
		parsed := collect.Parse(file, cmp.Or(f.g.Namespace, "default"), schemas.Check)
		collect.Overlay(&in, parsed)
		for _, e := range parsed.Broken {
			line := max(e.Line, 1)
			byFile[file.Name] = append(byFile[file.Name], finding{file.Name, line, e.Reason, e.Warning})
		}
		for _, p := range parsed.Problems {
			text := p.Resource.String() + ": "
			if p.Field != "" {
				text += p.Field + ": "
			}
			byFile[file.Name] = append(byFile[file.Name], finding{file.Name, p.Resource.Line(p.Field), text + p.Reason, p.Warning})
		}
	}
	if f.referential {
		if err := references(cmd, in, byFile); err != nil {
			return err
		}
	}
	return report(cmd, files, byFile)
}

// references adds what the analyzers find to be missing.
func references(cmd *cobra.Command, in analysis.Input, byFile map[string][]finding) error {
	found, err := analysis.Run(cmd.Context(), analysis.NewSnapshot(in), analyzers.All())
	if err != nil {
		return err
	}
	for _, m := range found.Unsuppressed(nil) {
		if m.Code != analysis.ReferencedResourceNotFound && m.Code != analysis.UnknownDestinationRuleHost && m.Code != analysis.SubsetSelectsNoPods || m.Resource == nil {
			continue
		}
		text := m.Resource.String() + ": "
		if m.Field != "" {
			text += m.Field + ": "
		}
		byFile[m.Resource.File] = append(byFile[m.Resource.File], finding{m.Resource.File, m.Resource.Line(m.Field), text + m.Text, m.Level < analysis.Error})
	}
	return nil
}

// report prints each file's problems, or that it is valid.
func report(cmd *cobra.Command, files []collect.File, byFile map[string][]finding) error {
	bad := 0
	for _, file := range files {
		found := byFile[file.Name]
		slices.SortStableFunc(found, func(a, b finding) int { return cmp.Compare(a.line, b.line) })
		errs := 0
		for _, one := range found {
			level := "warning"
			if !one.warning {
				level = "error"
				errs++
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s:%d: %s: %s\n", one.file, one.line, level, one.text)
		}
		switch {
		case errs > 0:
			bad++
			fmt.Fprintf(cmd.ErrOrStderr(), "%q is not valid: %s\n", file.Name, count(errs, "error"))
		case len(found) > 0:
			fmt.Fprintf(cmd.OutOrStdout(), "%q is valid, with %s\n", file.Name, count(len(found), "warning"))
		default:
			fmt.Fprintf(cmd.OutOrStdout(), "%q is valid\n", file.Name)
		}
	}
	if bad > 0 {
		return fmt.Errorf("%s not valid", strings.Replace(count(bad, "file is"), "files is", "files are", 1))
	}
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if first, rest, ok := strings.Cut(what, " "); ok {
		return fmt.Sprintf("%d %ss %s", n, first, rest)
	}
	return fmt.Sprintf("%d %ss", n, what)
}
