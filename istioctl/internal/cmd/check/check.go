// Package check has the commands that look whether a mesh can be installed, and whether one that is installed is whole.
package check

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/selftest"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/upgrade"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

type flags struct {
	g       *cli.Globals
	build   telemetry.Build
	before  bool
	timeout time.Duration
	output  cli.Output
}

func (f *flags) add(cmd *cobra.Command) {
	f.output.Add(cmd.Flags(), cli.Text)
	cmd.Flags().DurationVar(&f.timeout, "timeout", time.Minute, "how long each check may take")
}

// New returns the command check.
func New(g *cli.Globals, build telemetry.Build) *cobra.Command {
	f := &flags{g: g, build: build}
	cmd := &cobra.Command{
		Use: "check", Short: "Look whether the mesh is whole, and say what to do where it is not", Args: cobra.NoArgs,
		Long: "Look whether the mesh is whole: the API, permissions, definitions, control plane, webhooks, CNI agents and ztunnels of all nodes,\n" +
			"certificates, pods that wait to be in the mesh, waypoints, clocks. With --pre, whether one can be installed. Exits with 1 when\n" +
			"something is broken.",
		Example: "  istioctl check --pre\n  istioctl check\n  istioctl check --sandbox default -o json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.check(cmd) },
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.before, "pre", false, "look whether the mesh can be installed, instead of whether it is whole")
	return cmd
}

func (f *flags) run(cmd *cobra.Command, checks []selftest.Check, report func(selftest.Result)) ([]selftest.Result, error) {
	if err := f.output.Check(); err != nil {
		return nil, err
	}
	mesh, err := f.g.Mesh()
	if err != nil {
		return nil, err
	}
	found := []selftest.Result{}
	subject := &selftest.Subject{Mesh: mesh, IstioNamespace: f.g.IstioNamespace, Version: f.build.Version, Now: time.Now(), Timeout: f.timeout}
	subject.Run(cmd.Context(), checks, func(r selftest.Result) {
		found = append(found, r)
		report(r)
	})
	return found, cmd.Context().Err()
}

func print(out io.Writer, r selftest.Result) {
	sign := map[selftest.State]string{selftest.Good: "✔", selftest.Skipped: "-", selftest.Warning: "!", selftest.Bad: "✘"}[r.State]
	fmt.Fprintf(out, "%s %s: %s\n", sign, r.Check, r.Detail)
	if r.Remedy != "" {
		fmt.Fprintf(out, "    %s\n", r.Remedy)
	}
}

func count(all []selftest.Result, state selftest.State) int {
	n := 0
	for _, r := range all {
		if r.State == state {
			n++
		}
	}
	return n
}

func (f *flags) check(cmd *cobra.Command) error {
	checks := selftest.After()
	if f.before {
		checks = selftest.Before()
	}
	out := cmd.OutOrStdout()
	found, err := f.run(cmd, checks, func(r selftest.Result) {
		if f.output.IsTable() {
			print(out, r)
		}
	})
	if err != nil {
		return err
	}
	broken := count(found, selftest.Bad)
	if !f.output.IsTable() {
		err = cli.Encode(out, f.output.Format, found)
	} else if broken == 0 {
		fmt.Fprintf(out, "\n✔ Nothing is broken (%d warnings)\n", count(found, selftest.Warning))
	}
	if err == nil && broken > 0 {
		err = fmt.Errorf("%d of %d checks found something broken", broken, len(checks))
	}
	return err
}

// NewPrecheck returns the command x precheck.
func NewPrecheck(g *cli.Globals, build telemetry.Build) *cobra.Command {
	f := &flags{g: g, build: build}
	var from string
	var skip, all bool
	cmd := &cobra.Command{
		Use: "precheck", Short: "Look whether the mesh can be installed or upgraded safely", Args: cobra.NoArgs,
		Long: "Look whether the mesh can be installed or upgraded safely. With --from-version, also what of the objects in the cluster has another\n" +
			"meaning or another default than in that version of Istio: what Istio itself has changed since, and what this mesh does otherwise\n" +
			"(docs/differences.md).",
		Example: "  istioctl x precheck\n  istioctl x precheck --from-version 1.30\n  istioctl x precheck --from-version 1.24 --skip-controlplane -o json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.precheck(cmd, skip, from) },
	}
	f.add(cmd)
	cmd.Flags().StringVarP(&from, "from-version", "f", "", "version of Istio that is upgraded from, such as 1.24: tell what of the objects in the cluster has changed since")
	cmd.Flags().BoolVar(&skip, "skip-controlplane", false, "do not look at what an installation needs, only at what runs")
	// All namespaces are looked at anyhow.
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "look at all namespaces, as is done without it too")
	return cmd
}

func (f *flags) precheck(cmd *cobra.Command, skip bool, from string) error {
	checks := selftest.Before()
	if skip {
		checks = selftest.Data()
	}
	if from != "" && from != f.build.Version {
		minor, err := upgrade.ParseVersion(from)
		if err != nil {
			return fmt.Errorf("--from-version: %w", err)
		}
		checks = append(checks, selftest.Since(minor)...)
	}
	found, err := f.run(cmd, checks, func(selftest.Result) {})
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	broken, warnings := count(found, selftest.Bad), count(found, selftest.Warning)
	if !f.output.IsTable() {
		if err := cli.Encode(out, f.output.Format, found); err != nil {
			return err
		}
	} else {
		for _, r := range found {
			if r.State == selftest.Bad || r.State == selftest.Warning {
				print(out, r)
			}
		}
		if broken+warnings == 0 {
			fmt.Fprintf(out, "✔ No issues found when checking the cluster. Istio is safe to install or upgrade!\n")
		}
	}
	if broken > 0 {
		return fmt.Errorf("%d of %d checks found what is in the way of an installation", broken, len(checks))
	}
	return nil
}
