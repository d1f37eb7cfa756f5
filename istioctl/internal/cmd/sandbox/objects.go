//go:build linux

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/sandbox"
)

// printResults prints what became of objects; failures are in the error that goes with them.
func printResults(w io.Writer, results []sandbox.Result) {
	for _, r := range results {
		if r.Error == "" {
			fmt.Fprintf(w, "%s %s\n", r.Object, r.Outcome)
		}
	}
}

func apply(s *shared) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Apply manifests", Args: cobra.NoArgs,
		Example: "  istioctl sandbox apply -f samples/bookinfo/networking/virtual-service-all-v1.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.manifests(cmd, files, (*sandbox.Client).ApplyTo)
		},
	}
	cmd.Flags().StringSliceVarP(&files, "filename", "f", nil, "files, directories, or - for standard input")
	return cmd
}

func remove(s *shared) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use: "delete (-f FILE | KIND NAME...)", Short: "Delete objects",
		Example: "  istioctl sandbox delete -f deny.yaml\n  istioctl sandbox delete authorizationpolicy no-curl",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(files) > 0 {
				return s.manifests(cmd, files, (*sandbox.Client).DeleteFrom)
			}
			kind, names, err := kindAndNames(args)
			if err != nil {
				return err
			}
			client, err := s.connect()
			if err != nil {
				return err
			}
			var problems []error
			for _, name := range names {
				if err := client.DeleteObject(cmd.Context(), kind, s.namespace, name); err != nil {
					problems = append(problems, err)
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s/%s deleted\n", kind, name)
			}
			return errors.Join(problems...)
		},
	}
	cmd.Flags().StringSliceVarP(&files, "filename", "f", nil, "files, directories, or - for standard input")
	return cmd
}

// manifests does something with every manifest; what is wrong with one keeps no other from its turn.
func (s *shared) manifests(cmd *cobra.Command, files []string, do func(*sandbox.Client, context.Context, string, string, []byte) ([]sandbox.Result, error)) error {
	if len(files) == 0 {
		return errors.New("name the manifests with -f")
	}
	inputs, err := read(files, cmd.InOrStdin())
	if err != nil {
		return err
	}
	client, err := s.connect()
	if err != nil {
		return err
	}
	var problems []error
	for _, in := range inputs {
		results, err := do(client, cmd.Context(), s.namespace, in.name, in.data)
		printResults(cmd.OutOrStdout(), results)
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// kindAndNames reads "kind name..." and "kind/name...".
func kindAndNames(args []string) (kind string, names []string, err error) {
	if len(args) == 0 {
		return "", nil, errors.New("name a kind and an object, such as: deployment reviews-v1")
	}
	kind, name, slash := strings.Cut(args[0], "/")
	if slash {
		names = append(names, name)
	}
	names = append(names, args[1:]...)
	if len(names) == 0 {
		return "", nil, fmt.Errorf("name an object of kind %s", kind)
	}
	return kind, names, nil
}

// label is the command of the given name: label or annotate.
func label(s *shared, use string) *cobra.Command {
	what := map[string]string{"label": "labels", "annotate": "annotations"}[use]
	return &cobra.Command{
		Use: use + " KIND NAME KEY=VALUE... KEY-...", Short: "Set " + what + " of an object, or take them away with KEY-",
		Example: map[string]string{
			"label":    "  istioctl sandbox label namespace default istio.io/dataplane-mode=ambient",
			"annotate": "  istioctl sandbox annotate service reviews networking.istio.io/traffic-distribution=PreferClose",
		}[use],
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, rest, err := kindAndNames(args)
			if err != nil {
				return err
			}
			values := map[string]*string{}
			for _, pair := range rest[1:] {
				key, value, ok := strings.Cut(pair, "=")
				switch bare, minus := strings.CutSuffix(pair, "-"); {
				case ok:
					values[key] = &value
				case minus:
					values[bare] = nil
				default:
					return fmt.Errorf("%q: want KEY=VALUE, or KEY- to take it away", pair)
				}
			}
			if len(values) == 0 {
				return fmt.Errorf("name the %s: KEY=VALUE, or KEY- to take one away", what)
			}
			client, err := s.connect()
			if err != nil {
				return err
			}
			change := map[string]any{"metadata": map[string]any{what: values}}
			if err := client.Patch(cmd.Context(), kind, s.namespace, rest[0], change); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s/%s %s\n", kind, rest[0], map[string]string{"label": "labelled", "annotate": "annotated"}[use])
			return nil
		},
	}
}

func scale(s *shared) *cobra.Command {
	replicas := -1
	cmd := &cobra.Command{
		Use: "scale KIND NAME --replicas N", Short: "Set the number of a workload's pods", Args: cobra.RangeArgs(1, 2),
		Example: "  istioctl sandbox scale deployment reviews-v1 --replicas 3",
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, names, err := kindAndNames(args)
			if err != nil {
				return err
			}
			if replicas < 0 {
				return errors.New("--replicas: want a number, 0 or more")
			}
			client, err := s.connect()
			if err != nil {
				return err
			}
			change := map[string]any{"spec": map[string]any{"replicas": replicas}}
			if err := client.Patch(cmd.Context(), kind, s.namespace, names[0], change); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s/%s scaled to %s\n", kind, names[0], strconv.Itoa(replicas))
			return nil
		},
	}
	cmd.Flags().IntVar(&replicas, "replicas", -1, "number of pods")
	return cmd
}

func rollout(s *shared) *cobra.Command {
	cmd := &cobra.Command{Use: "rollout", Short: "Replace the pods of a workload", Example: "  istioctl sandbox rollout restart deployment reviews-v1"}
	cmd.AddCommand(&cobra.Command{
		Use: "restart KIND NAME", Short: "Replace the pods of a workload, as its update strategy says", Args: cobra.RangeArgs(1, 2),
		Example: "  istioctl sandbox rollout restart daemonset ztunnel -n istio-system",
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, names, err := kindAndNames(args)
			if err != nil {
				return err
			}
			client, err := s.connect()
			if err != nil {
				return err
			}
			if err := client.Restart(cmd.Context(), kind, s.namespace, names[0]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s/%s restarted\n", kind, names[0])
			return nil
		},
	})
	return cmd
}
