package analyze

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/analysis"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
)

// report prints the findings, and returns the exit code as an error.
func (f *flags) report(cmd *cobra.Command, t target, found analysis.Messages) error {
	shown := found.Worst(f.output)
	text, err := f.render(shown)
	if err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), text)
	if len(shown) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), clean(t))
	}
	switch {
	case len(found.Worst(f.failure)) > 0:
		fmt.Fprintf(cmd.ErrOrStderr(), "Error: Analyzers found issues when analyzing %s.\nSee https://github.com/isthmus-mesh/isthmus/blob/main/docs/analyze.md for more information about causes and resolutions.\n", t)
		return &cli.ExitError{Code: exitIssues}
	case t.broken > 0 && !f.ignoreUnknown:
		fmt.Fprintln(cmd.ErrOrStderr(), "Error: Some files couldn't be parsed.")
		return &cli.ExitError{Code: exitParse}
	}
	return nil
}

func (f *flags) render(found analysis.Messages) (string, error) {
	switch f.format {
	case "json":
		data, err := json.MarshalIndent(found, "", "\t")
		return string(data), err
	case "yaml":
		data, err := yaml.Marshal(found)
		return strings.TrimRight(string(data), "\n"), err
	}
	lines := make([]string, len(found))
	for i, m := range found {
		lines[i] = m.String()
		if f.color {
			lines[i] = m.Colored()
		}
	}
	return strings.Join(lines, "\n"), nil
}

// clean is what is said when there is nothing to say.
func clean(t target) string {
	const none = "No validation issues found when analyzing "
	switch {
	case t.broken == 1:
		return fmt.Sprintf(none+"%s (but 1 file could not be parsed).", t)
	case t.broken > 1:
		return fmt.Sprintf(none+"%s (but %d files could not be parsed).", t, t.broken)
	case len(t.files) == 1:
		return "✔ " + none + t.files[0] + "."
	case len(t.files) > 1:
		return "✔ No validation issues found when analyzing:\n  - " + strings.Join(t.files, "\n  - ")
	}
	return "✔ " + none + t.String() + "."
}
