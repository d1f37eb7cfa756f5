// Package admin has the commands that manage the control plane.
package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// New returns the command.
func New(g *cli.Globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "admin", Aliases: []string{"istiod"}, Short: "Manage the control plane",
		Example: "  istioctl admin log\n  istioctl admin log --level xds:debug",
	}
	cmd.AddCommand(logs(g))
	return cli.Group(cmd)
}

// scope is one of the control plane's loggers, as ControlZ knows it.
type scope struct {
	Name            string `json:"name"`
	Description     string `json:"description"`
	OutputLevel     string `json:"output_level"`
	StackTraceLevel string `json:"stack_trace_level,omitempty"`
	LogCallers      bool   `json:"log_callers,omitempty"`
}

type logFlags struct {
	level, stack, revision string
	reset                  bool
	port                   int
	output                 cli.Output
}

func logs(g *cli.Globals) *cobra.Command {
	f := &logFlags{}
	cmd := &cobra.Command{
		Use: "log [POD]", Aliases: []string{"l"}, Short: "Show or set the log levels of the control plane", Args: cobra.MaximumNArgs(1),
		Example: "  istioctl admin log\n  istioctl admin log --level xds:debug,ca:info\n  istioctl admin log --reset",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			mesh, err := g.Mesh()
			if err != nil {
				return err
			}
			pods, err := mesh.Istiod(cmd.Context(), g.IstioNamespace, f.revision)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				name, _, _ := strings.Cut(args[0], ".")
				pods = slices.DeleteFunc(pods, func(p reach.Pod) bool { return p.Name != name })
				if len(pods) == 0 {
					return fmt.Errorf("%s is no pod of the control plane", args[0])
				}
			}
			for _, pod := range pods {
				if err := f.run(cmd, mesh, pod); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.output.Add(cmd.Flags(), cli.Short)
	cmd.Flags().StringVar(&f.level, "level", "", "levels to set, a comma-separated list of LEVEL, for all, or SCOPE:LEVEL; levels are debug, info, warn, error, none")
	cmd.Flags().StringVar(&f.stack, "stack-trace-level", "", "levels from which stack traces are logged, in the same form")
	cmd.Flags().BoolVar(&f.reset, "reset", false, "set all levels to info, and of stack traces to none")
	cmd.Flags().IntVar(&f.port, "ctrlz_port", reach.ControlPort, "port of ControlZ")
	cmd.Flags().StringVarP(&f.revision, "revision", "r", "", "revision of the control plane")
	return cmd
}

func (f *logFlags) check() error {
	if f.reset && (f.level != "" || f.stack != "") {
		return errors.New("--reset excludes --level and --stack-trace-level")
	}
	for _, l := range append(parse(f.level), parse(f.stack)...) {
		if !slices.Contains([]string{"none", "fatal", "error", "warn", "info", "debug"}, l.level) {
			return fmt.Errorf("level %q is none of debug, info, warn, error, fatal, none", l.level)
		}
	}
	return f.output.Check()
}

type setting struct{ scope, level string }

func parse(text string) []setting {
	var out []setting
	for _, part := range strings.Split(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, level, ok := strings.Cut(part, ":")
		if !ok {
			name, level = "", part
		}
		out = append(out, setting{name, level})
	}
	return out
}

func (f *logFlags) run(cmd *cobra.Command, mesh *reach.Mesh, pod reach.Pod) error {
	all, err := f.scopes(cmd, mesh, pod)
	if err != nil {
		return err
	}
	changed, err := f.change(all)
	if err != nil {
		return err
	}
	for _, s := range changed {
		body, err := json.Marshal(s)
		if err != nil {
			return err
		}
		if _, err := mesh.Put(cmd.Context(), pod, f.port, "/scopej/"+s.Name, body); err != nil {
			return err
		}
	}
	if len(changed) > 0 {
		if all, err = f.scopes(cmd, mesh, pod); err != nil {
			return err
		}
	}
	t := &dump.Table{Columns: []string{"ACTIVE SCOPE", "DESCRIPTION", "LOG LEVEL"}, Gap: 5}
	for _, s := range all {
		t.Rows = append(t.Rows, []string{s.Name, s.Description, s.OutputLevel})
	}
	return f.output.Print(cmd.OutOrStdout(), t, all)
}

func (f *logFlags) scopes(cmd *cobra.Command, mesh *reach.Mesh, pod reach.Pod) ([]scope, error) {
	data, err := mesh.Get(cmd.Context(), pod, f.port, "/scopej/")
	if err != nil {
		return nil, fmt.Errorf("%w; does this control plane serve ControlZ there?", err)
	}
	var all []scope
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("log scopes of %s: %w", pod, err)
	}
	slices.SortFunc(all, func(a, b scope) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// change returns the scopes that are to be set.
func (f *logFlags) change(all []scope) ([]scope, error) {
	wanted := map[string]scope{}
	for _, s := range all {
		wanted[s.Name] = s
	}
	set := func(settings []setting, put func(*scope, string)) error {
		for _, l := range settings {
			if _, known := wanted[l.scope]; l.scope != "" && !known {
				return fmt.Errorf("there is no log scope %q; see istioctl admin log", l.scope)
			}
			for name, s := range wanted {
				if l.scope == "" || l.scope == name {
					put(&s, l.level)
					wanted[name] = s
				}
			}
		}
		return nil
	}
	levels, stacks := parse(f.level), parse(f.stack)
	if f.reset {
		levels, stacks = []setting{{"", "info"}}, []setting{{"", "none"}}
	}
	if err := errors.Join(
		set(levels, func(s *scope, l string) { s.OutputLevel = l }),
		set(stacks, func(s *scope, l string) { s.StackTraceLevel = l }),
	); err != nil {
		return nil, err
	}
	var out []scope
	for _, s := range all {
		if wanted[s.Name] != s {
			out = append(out, wanted[s.Name])
		}
	}
	return out, nil
}
