// Package dashboard has the commands that open what is served in the cluster in a browser on this machine.
package dashboard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// flags of all commands.
type flags struct {
	g       *cli.Globals
	port    int
	address string
	browser bool
}

// addOn is something that may be installed beside the mesh.
type addOn struct {
	name      string
	port      int
	selectors []string
	path      string
}

func addOns() []addOn {
	return []addOn{
		{"grafana", 3000, []string{"app.kubernetes.io/name=grafana", "app=grafana"}, ""},
		{"jaeger", 16686, []string{"app=jaeger", "app.kubernetes.io/name=jaeger"}, ""},
		{"kiali", 20001, []string{"app=kiali", "app.kubernetes.io/name=kiali"}, "/kiali"},
		{"prometheus", 9090, []string{"app.kubernetes.io/name=prometheus", "app=prometheus"}, ""},
		{"skywalking", 8080, []string{"app=skywalking-ui"}, ""},
		{"zipkin", 9411, []string{"app=zipkin"}, ""},
	}
}

// New returns the command.
func New(g *cli.Globals) *cobra.Command {
	f := &flags{g: g}
	cmd := &cobra.Command{
		Use: "dashboard", Aliases: []string{"dash", "d"}, Short: "Open user interfaces of the mesh and its add-ons in a browser",
		Example: "  istioctl dashboard kiali\n  istioctl dashboard proxy deploy/waypoint --browser=false",
	}
	p := cmd.PersistentFlags()
	p.IntVarP(&f.port, "port", "p", 0, "port on this machine; a free one unless given")
	p.StringVar(&f.address, "address", "localhost", "address on this machine")
	p.BoolVar(&f.browser, "browser", true, "open a browser; otherwise only the address is printed")
	for _, a := range addOns() {
		cmd.AddCommand(f.addOn(a))
	}
	cmd.AddCommand(
		f.proxy("envoy", "Open the admin interface of a proxy", "  istioctl dashboard envoy deploy/istio-ingressgateway.istio-system"),
		f.proxy("proxy", "Open the admin interface of a waypoint, gateway or ztunnel", "  istioctl dashboard proxy deploy/waypoint"),
		f.controlPlane("controlz", "Open ControlZ, the log levels of the control plane", "  istioctl dashboard controlz", reach.ControlPort, "/scopej/"),
		f.controlPlane("istiod-debug", "Open the debug interface of the control plane", "  istioctl dashboard istiod-debug", reach.MonitoringPort, "/debug"),
	)
	return cli.Group(cmd)
}

func (f *flags) addOn(a addOn) *cobra.Command {
	var remote int
	cmd := &cobra.Command{
		Use: a.name, Short: "Open " + strings.ToUpper(a.name[:1]) + a.name[1:], Args: cobra.NoArgs, Example: "  istioctl dashboard " + a.name,
		RunE: func(cmd *cobra.Command, _ []string) error {
			mesh, err := f.g.Mesh()
			if err != nil {
				return err
			}
			namespace := f.g.IstioNamespace
			if f.g.Namespace != "" {
				namespace = f.g.Namespace
			}
			for _, selector := range a.selectors {
				pods, err := mesh.Pods(cmd.Context(), namespace, selector)
				if err != nil {
					return err
				}
				for _, p := range pods {
					if p.Ready {
						return f.serve(cmd, mesh, p, remote, a.path)
					}
				}
			}
			return fmt.Errorf("%s is not installed in namespace %s (no pod with %s is ready); install it, for instance from Istio's samples/addons, or name its namespace by --namespace",
				a.name, namespace, strings.Join(a.selectors, " or "))
		},
	}
	cmd.Flags().IntVar(&remote, "ui-port", a.port, "port of its pod")
	return cmd
}

func (f *flags) proxy(name, short, example string) *cobra.Command {
	var selector string
	var port int
	cmd := &cobra.Command{
		Use: name + " [POD]", Short: short, Example: example,
		Args: func(_ *cobra.Command, args []string) error {
			if (selector == "") == (len(args) == 0) || len(args) > 1 {
				return errors.New("which proxy: name a pod, or --selector, one of both")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			mesh, err := f.g.Mesh()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				pod, err := mesh.Find(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return f.serve(cmd, mesh, pod, port, "")
			}
			pods, err := mesh.Pods(cmd.Context(), mesh.Default, selector)
			if err != nil {
				return err
			}
			if len(pods) == 0 {
				return fmt.Errorf("no pod with %s runs in namespace %s", selector, mesh.Default)
			}
			return f.serve(cmd, mesh, pods[0], port, "")
		},
	}
	cmd.Flags().StringVarP(&selector, "selector", "l", "", "labels of the pod, instead of its name")
	cmd.Flags().IntVar(&port, "ui-port", reach.AdminPort, "port of the pod")
	return cmd
}

func (f *flags) controlPlane(name, short, example string, port int, path string) *cobra.Command {
	var revision string
	cmd := &cobra.Command{
		Use: name + " [POD]", Short: short, Example: example, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			mesh, err := f.g.Mesh()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				pod, err := mesh.Find(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return f.serve(cmd, mesh, pod, port, path)
			}
			pods, err := mesh.Istiod(cmd.Context(), f.g.IstioNamespace, revision)
			if err != nil {
				return err
			}
			return f.serve(cmd, mesh, pods[0], port, path)
		},
	}
	cmd.Flags().IntVar(&port, "ui-port", port, "port of the pod")
	cmd.Flags().StringVarP(&revision, "revision", "r", "", "revision of the control plane")
	return cmd
}

// serve forwards a port of this machine until the command is interrupted.
func (f *flags) serve(cmd *cobra.Command, mesh *reach.Mesh, pod reach.Pod, port int, path string) error {
	ctx := cmd.Context()
	// What cannot be reached is said before a browser shows an empty page.
	if err := answers(ctx, mesh, pod, port, path); err != nil {
		return fmt.Errorf("port %d of pod %s.%s: %w", port, pod.Name, pod.Namespace, err)
	}
	return mesh.Forward(ctx, pod, port, f.address+":"+strconv.Itoa(f.port), func(local int) {
		url := fmt.Sprintf("http://%s:%d%s", f.address, local, path)
		fmt.Fprintln(cmd.OutOrStdout(), url)
		if f.browser {
			if err := open(ctx, url); err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "no browser can be opened (%v): open the address yourself\n", err)
			}
		}
		fmt.Fprintln(cmd.ErrOrStderr(), "Interrupt (Ctrl+C) to end")
	}, func(err error) { fmt.Fprintln(cmd.ErrOrStderr(), "Warning:", err) })
}

// answers is nil once something has answered a request, with whatever status. That a connection could be opened would say little: an API
// server opens one to any port, and tells later that nobody listens there.
func answers(ctx context.Context, mesh *reach.Mesh, pod reach.Pod, port int, path string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, http.NoBody)
	if err != nil {
		return err
	}
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return mesh.Dial(ctx, pod, port) },
		DisableKeepAlives: true,
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// patience is how long an answer of what is to be opened is waited for.
const patience = 20 * time.Second

// open opens a browser.
func open(ctx context.Context, url string) error {
	program := map[string][]string{"darwin": {"open"}, "windows": {"rundll32", "url.dll,FileProtocolHandler"}}[runtime.GOOS]
	if program == nil {
		program = []string{"xdg-open"}
	}
	return exec.CommandContext(ctx, program[0], append(program[1:], url)...).Start()
}
