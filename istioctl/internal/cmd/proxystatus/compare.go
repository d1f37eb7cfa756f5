package proxystatus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/dump"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// errDiffers is the end of a comparison that found a difference.
var errDiffers = errors.New("the proxy does not have what the control plane wants it to have")

// compare shows whether one proxy has what it should have.
func (f *flags) compare(cmd *cobra.Command, name string) error {
	mesh, proxy, err := f.find(cmd.Context(), name)
	if err != nil {
		return err
	}
	// The proxy may be in another namespace than -n.
	all, err := f.states(cmd.Context(), "")
	if err != nil {
		return err
	}
	var status *dump.Sync
	for i := range all {
		if all[i].Name == proxy.String() {
			status = &all[i]
		}
	}
	if status == nil {
		return fmt.Errorf("%s is not connected to the control plane: look at its log, and whether it reaches istiod's port 15012", proxy)
	}
	out := cmd.OutOrStdout()
	if !f.output.IsTable() {
		return cli.Encode(out, f.output.Format, status)
	}
	if status.ProxyType == "ztunnel" {
		return printStates(out, status)
	}
	have, err := f.has(cmd, mesh, proxy)
	if err != nil {
		return err
	}
	want, err := f.wants(cmd.Context(), mesh, status)
	if err != nil {
		return err
	}
	if want == nil {
		err = printStates(out, status)
	} else {
		err = printComparison(out, dump.Compare(want, have), have.RoutesLoaded())
	}
	if refused := printRefusals(out, want != nil, have, status); err == nil {
		err = refused
	}
	return err
}

// printRefusals says what the proxy refuses: by its own account and, where it is silent and states have not been shown, the control plane's.
func printRefusals(out io.Writer, compared bool, have *dump.Envoy, status *dump.Sync) error {
	var differs error
	told := map[string]bool{}
	for _, r := range have.Refusals() {
		fmt.Fprintf(out, "%s %s is refused: %s\n", r.Type, r.Name, r.Details)
		told[r.Type], differs = true, errDiffers
	}
	for _, name := range status.Ordered() {
		if why := status.Types[name].Error; compared && why != "" && !told[name] {
			fmt.Fprintf(out, "%s is refused: %s\n", name, why)
			differs = errDiffers
		}
	}
	return differs
}

// find finds the proxy. No mesh is needed when the control plane is asked by xDS and a file has what the proxy has.
func (f *flags) find(ctx context.Context, name string) (*reach.Mesh, reach.Pod, error) {
	if pod, namespace, whole := strings.Cut(name, "."); whole && f.file != "" && f.xds.Used() {
		return nil, reach.Pod{Name: pod, Namespace: namespace}, nil
	}
	mesh, err := f.g.Mesh()
	if err != nil {
		return nil, reach.Pod{}, err
	}
	pod, err := mesh.Find(ctx, name)
	return mesh, pod, err
}

// has is what the proxy has, or had when the file was made.
func (f *flags) has(cmd *cobra.Command, mesh *reach.Mesh, pod reach.Pod) (*dump.Envoy, error) {
	var data []byte
	var err error
	if f.file != "" {
		data, err = cli.ReadFile(f.file, cmd.InOrStdin())
	} else {
		data, err = mesh.Get(cmd.Context(), pod, f.port, "/config_dump?include_eds")
	}
	if err != nil {
		return nil, err
	}
	return dump.ReadEnvoy(data)
}

// wants is what the control plane would send now; nil when it does not say.
func (f *flags) wants(ctx context.Context, mesh *reach.Mesh, status *dump.Sync) (*dump.Envoy, error) {
	if f.xds.Used() {
		return f.xds.ConfigDump(ctx, f.source(), status.Name)
	}
	pods, err := mesh.Istiod(ctx, f.g.IstioNamespace, f.revision)
	if err != nil {
		return nil, err
	}
	for _, pod := range pods {
		if pod.Name != status.ControlBy {
			continue
		}
		data, err := mesh.Get(ctx, pod, reach.DebugPort, "/debug/config_dump?proxyID="+url.QueryEscape(status.Name)+"&include_eds=true")
		var answer *reach.StatusError
		if errors.As(err, &answer) && answer.Code == http.StatusNotFound {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return dump.ReadEnvoy(data)
	}
	return nil, nil
}

// printStates says for each type whether the proxy has taken over what was sent last.
func printStates(out io.Writer, status *dump.Sync) error {
	var differs error
	for _, name := range status.Ordered() {
		t := status.Types[name]
		if t.State == dump.Stale || t.State == dump.Refused {
			differs = errDiffers
		}
		word := map[string]string{"CDS": "Clusters", "LDS": "Listeners", "RDS": "Routes", "EDS": "Endpoints", "WDS": "Workloads", "WADS": "Policies"}[name]
		if word == "" {
			word = name
		}
		if t.State == dump.Synced {
			fmt.Fprintf(out, "%s Match: %s\n", word, t.Describe(time.Now()))
			continue
		}
		fmt.Fprintf(out, "%s: %s\n", word, t.Describe(time.Now()))
		if t.Error != "" {
			fmt.Fprintf(out, "  %s\n", t.Error)
		}
	}
	return differs
}

func printComparison(out io.Writer, sections []dump.Difference, routesLoaded time.Time) error {
	var differs error
	for _, s := range sections {
		if len(s.Lines) > 0 {
			differs = errDiffers
			fmt.Fprintf(out, "%s Don't Match (--- istiod, +++ proxy)\n", s.Section)
			for _, line := range s.Lines {
				fmt.Fprintln(out, line)
			}
			continue
		}
		when := ""
		if s.Section == "Routes" && !routesLoaded.IsZero() {
			when = " (RDS last loaded at " + routesLoaded.Local().Format(time.RFC1123) + ")"
		}
		fmt.Fprintf(out, "%s Match%s\n", s.Section, when)
	}
	return differs
}
