//go:build linux

package sandbox

import (
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/sandbox"
)

func execute(s *shared) *cobra.Command {
	var container string
	var stdin, tty bool
	cmd := &cobra.Command{
		Use: "exec POD [-c CONTAINER] -- COMMAND...", Short: "Run a command in a pod, named as POD or deploy/NAME",
		Example: "  istioctl sandbox exec deploy/curl -- curl -s productpage:9080/productpage",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			argv := args[1:]
			if len(argv) == 0 {
				return errors.New("name the command after --")
			}
			if tty {
				return errors.New("-t: terminals are not passed on; use -i for the command's input")
			}
			client, err := s.connect()
			if err != nil {
				return err
			}
			streams := sandbox.ExecIO{Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr()}
			if stdin {
				streams.Stdin = cmd.InOrStdin()
			}
			code, err := client.Exec(cmd.Context(), s.namespace, args[0], container, argv, streams)
			if err == nil && code != 0 {
				return &cli.ExitError{Code: code}
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&container, "container", "c", "", "container, the first unless set")
	cmd.Flags().BoolVarP(&stdin, "stdin", "i", false, "pass standard input on")
	cmd.Flags().BoolVarP(&tty, "tty", "t", false, "not supported")
	return cmd
}

func logs(s *shared) *cobra.Command {
	var container string
	var follow bool
	var since time.Duration
	cmd := &cobra.Command{
		Use: "logs POD", Short: "Print the output of a container of a pod, named as POD or deploy/NAME", Args: cobra.ExactArgs(1),
		Example: "  istioctl sandbox logs -n istio-system daemonset/ztunnel -f",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := s.connect()
			if err != nil {
				return err
			}
			var from time.Time
			if since > 0 {
				from = time.Now().Add(-since)
			}
			log, err := client.Logs(cmd.Context(), s.namespace, args[0], container, follow, from)
			if err != nil {
				return err
			}
			defer log.Close()
			_, err = io.Copy(cmd.OutOrStdout(), log)
			if cmd.Context().Err() != nil {
				return nil // interrupted: that is how following ends
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&container, "container", "c", "", "container, the first unless set")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	cmd.Flags().DurationVar(&since, "since", 0, "only what is younger, such as 5m")
	return cmd
}
