//go:build linux

package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/sandbox"
)

func status(s *shared) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "status", Short: "Show nodes, pods, services, and what is wrong", Args: cobra.NoArgs,
		Example: "  istioctl sandbox status",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := s.connect()
			if err != nil {
				return err
			}
			st, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			switch output {
			case "json":
				return printJSON(cmd.OutOrStdout(), st)
			case "":
				return printStatus(cmd.OutOrStdout(), st)
			}
			return fmt.Errorf("-o %s: want json", output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	return cmd
}

func printJSON(w io.Writer, value any) error {
	out, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, string(out))
	return err
}

func printStatus(w io.Writer, st sandbox.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NAMESPACE\tPOD\tREADY\tSTATUS\tRESTARTS\tMESH\tIP\tNODE")
	for _, p := range st.Pods {
		ip := "-"
		if len(p.IPs) > 0 {
			ip = p.IPs[0]
		}
		fmt.Fprintf(t, "%s\t%s\t%t\t%s\t%d\t%s\t%s\t%s\n", p.Namespace, p.Name, p.Ready, podState(p), p.Restarts, orDash(p.Redirection), ip, orDash(p.Node))
	}
	fmt.Fprintln(t, "\nNAMESPACE\tSERVICE\tTYPE\tIP\tPORTS")
	for _, svc := range st.Services {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", svc.Namespace, svc.Name, svc.Type, orDash(strings.Join(svc.IPs, ",")), strings.Join(svc.Ports, ","))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, p := range st.Pods {
		if p.Message != "" {
			fmt.Fprintf(w, "\n%s/%s: %s: %s\n", p.Namespace, p.Name, p.Reason, p.Message)
		}
	}
	for _, p := range st.Problems {
		fmt.Fprintf(w, "\nnot in force: %s\n", p)
	}
	for _, p := range st.Published {
		address, target, _ := strings.Cut(p, "=")
		fmt.Fprintf(w, "\nhttp://%s is %s\n", address, target)
	}
	return nil
}

func podState(p sandbox.PodStatus) string {
	switch {
	case p.Terminating:
		return "Terminating"
	case p.Reason != "":
		return p.Reason
	}
	return p.Phase
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func get(s *shared) *cobra.Command {
	var output string
	var all bool
	cmd := &cobra.Command{
		Use: "get KIND [NAME]", Short: "Show objects", Args: cobra.RangeArgs(1, 2),
		Example: "  istioctl sandbox get pods -A\n  istioctl sandbox get gateway waypoint -o yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, name, _ := strings.Cut(args[0], "/")
			if len(args) == 2 {
				name = args[1]
			}
			client, err := s.connect()
			if err != nil {
				return err
			}
			namespace := s.namespace
			if all {
				namespace = ""
			}
			list, err := client.List(cmd.Context(), kind, namespace)
			if err != nil {
				return err
			}
			return printObjects(cmd.OutOrStdout(), kind, name, output, list)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "yaml or json")
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "of all namespaces")
	return cmd
}

func printObjects(w io.Writer, kind, name, output string, list []json.RawMessage) error {
	type head struct {
		Metadata struct {
			Namespace, Name   string
			CreationTimestamp time.Time
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	if output == "" {
		fmt.Fprintln(t, "NAMESPACE\tNAME\tAGE")
	}
	found := 0
	for _, raw := range list {
		var h head
		if err := json.Unmarshal(raw, &h); err != nil {
			return err
		}
		if name != "" && h.Metadata.Name != name {
			continue
		}
		found++
		switch output {
		case "":
			age := time.Since(h.Metadata.CreationTimestamp).Round(time.Second)
			fmt.Fprintf(t, "%s\t%s\t%s\n", orDash(h.Metadata.Namespace), h.Metadata.Name, age)
		case "json":
			if err := printJSON(w, raw); err != nil {
				return err
			}
		case "yaml":
			text, err := yaml.JSONToYAML(raw)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "---\n%s", text)
		default:
			return fmt.Errorf("-o %s: want yaml or json", output)
		}
	}
	if found == 0 {
		if name != "" {
			return fmt.Errorf("%s %s not found", kind, strconv.Quote(name))
		}
		return errors.New("no objects of kind " + kind)
	}
	return t.Flush()
}
