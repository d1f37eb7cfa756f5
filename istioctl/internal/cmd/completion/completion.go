// Package completion has the commands that print scripts by which shells complete commands.
package completion

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
)

// New returns the command.
func New() *cobra.Command {
	cmd := &cobra.Command{
		Use: "completion", Short: "Print a script for a shell that completes commands",
		Long: "Print a script for a shell that completes commands, flags, and the names of pods, namespaces and waypoints of the mesh that is\n" +
			"looked at.",
		Example: "  source <(istioctl completion bash)\n  istioctl completion fish > ~/.config/fish/completions/istioctl.fish",
	}
	for _, shell := range []struct {
		name, example string
		print         func(*cobra.Command, io.Writer, bool) error
	}{
		{"bash", "  source <(istioctl completion bash)", (*cobra.Command).GenBashCompletionV2},
		{"zsh", "  istioctl completion zsh > \"${fpath[1]}/_istioctl\"", func(root *cobra.Command, w io.Writer, descriptions bool) error {
			if descriptions {
				return root.GenZshCompletion(w)
			}
			return root.GenZshCompletionNoDesc(w)
		}},
		{"fish", "  istioctl completion fish | source", (*cobra.Command).GenFishCompletion},
		{"powershell", "  istioctl completion powershell | Out-String | Invoke-Expression", func(root *cobra.Command, w io.Writer, descriptions bool) error {
			if descriptions {
				return root.GenPowerShellCompletionWithDesc(w)
			}
			return root.GenPowerShellCompletion(w)
		}},
	} {
		bare := false
		sub := &cobra.Command{
			Use: shell.name, Short: fmt.Sprintf("Print the script for %s", shell.name), Args: cobra.NoArgs, Example: shell.example,
			RunE: func(cmd *cobra.Command, _ []string) error { return shell.print(cmd.Root(), cmd.OutOrStdout(), !bare) },
		}
		sub.Flags().BoolVar(&bare, "no-descriptions", false, "complete without descriptions")
		cmd.AddCommand(sub)
	}
	return cli.Group(cmd)
}
