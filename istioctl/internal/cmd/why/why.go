// Package why has the command that says what happens to a connection or request, and why.
package why

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/istioctl/internal/why"
	"github.com/isthmus-mesh/isthmus/pilot/simulate"
)

type flags struct {
	g        *cli.Globals
	output   cli.Output
	files    []string
	headers  []string
	identity string
	sni      string
	keys     []string
	probe    bool
	timeout  time.Duration
}

// New returns the command.
func New(g *cli.Globals) *cobra.Command {
	f := &flags{g: g}
	cmd := &cobra.Command{
		Use: "why SOURCE DESTINATION[:PORT] [METHOD PATH]", Short: "Say what happens to a connection or request, and why",
		Long: "Say what happens to a connection or request, and why: every proxy on the way, the waypoint and the label that asks for it, the route, the\n" +
			"endpoints, the policy that allows or denies, with the object and, from files, the line. It is worked out by the code of the control plane\n" +
			"and of the proxies.\n\n" +
			"SOURCE is a pod (POD, POD.NAMESPACE), deploy/NAME, svc/NAME, gateway/NAME for a client that comes to a gateway, or outside for a client that\n" +
			"is not in the mesh. DESTINATION is a service (reviews, reviews.bookinfo, its full name), the host of a ServiceEntry, a pod, an address, or\n" +
			"gateway/NAME.\n\n" +
			"The exit code is 0 when it is allowed, 1 when it is denied, and 2 when it cannot work: no endpoints, no route, a waypoint that is missing, or\nan error; or when it is not known, as a sidecar decides, which is not worked out.",
		Example: "  istioctl why deploy/productpage-v1 reviews:9080 GET /reviews/0\n" +
			"  istioctl why deploy/sleep.test productpage.bookinfo:9080 GET /admin --probe\n" +
			"  istioctl why outside gateway/bookinfo-gateway GET /productpage -f bookinfo.yaml -f gateway.yaml\n" +
			"  istioctl why outside details:9080 --identity bookinfo/bookinfo-productpage -f ./manifests",
		Args: func(cmd *cobra.Command, args []string) error {
			err := cobra.RangeArgs(2, 4)(cmd, args)
			if err == nil && len(args) == 4 && !strings.HasPrefix(args[3], "/") && args[3] != "*" {
				err = fmt.Errorf("the path %q does not begin with a slash", args[3])
			}
			return failed(err)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := f.run(cmd, args)
			if err != nil {
				return failed(err)
			}
			if code := why.Code(report.Verdict.Outcome); code != 0 {
				return &cli.ExitError{Code: code}
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return failed(cli.SuggestFlag(cmd, err)) })
	f.output.Add(cmd.Flags(), cli.Text)
	cmd.Flags().StringSliceVarP(&f.files, "filename", "f", nil, "file or directory of manifests to look at instead of a mesh, - for the standard input; may be repeated")
	cmd.Flags().StringArrayVarP(&f.headers, "header", "H", nil, "header of the request, as 'name: value'; may be repeated")
	cmd.Flags().StringVar(&f.sni, "sni", "", "name that a client of TLS asks for; that of the request if empty")
	cmd.Flags().StringVar(&f.identity, "identity", "", "identity of the client instead of its own: spiffe://TRUSTDOMAIN/ns/NAMESPACE/sa/ACCOUNT, or NAMESPACE/ACCOUNT")
	cmd.Flags().StringArrayVar(&f.keys, "jwks", nil, "keys of a token's issuer, as URI=FILE, for what a RequestAuthentication fetches; may be repeated")
	cmd.Flags().BoolVar(&f.probe, "probe", false, "send the real thing too, and compare")
	cmd.Flags().DurationVar(&f.timeout, "timeout", time.Minute, "how long all of it may take")
	return cmd
}

// failed gives an error an exit code that does not say that the request is denied.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return &cli.ExitError{Code: 2, Err: err}
}

func (f *flags) question(args []string) why.Question {
	q := why.Question{From: args[0], To: args[1], Headers: f.headers, SNI: f.sni, Identity: f.identity, Namespace: f.g.Namespace}
	if len(args) > 2 {
		q.Method = strings.ToUpper(args[2])
	}
	if len(args) > 3 {
		q.Path = args[3]
	}
	return q
}

// keySets reads the files with keys.
func (f *flags) keySets() (map[string]string, error) {
	out := map[string]string{}
	for _, k := range f.keys {
		uri, file, ok := cut(k)
		if !ok {
			return nil, fmt.Errorf("--jwks %q is not URI=FILE", k)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--jwks %s: %w", uri, err)
		}
		out[uri] = string(data)
	}
	return out, nil
}

// cut splits at the last =: addresses may have one.
func cut(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '=')
	if i <= 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

func (f *flags) run(cmd *cobra.Command, args []string) (*why.Report, error) {
	if err := f.output.Check(); err != nil {
		return nil, err
	}
	if len(f.files) > 0 && f.probe {
		return nil, errors.New("--probe needs a mesh that runs, and --filename is about one that does not")
	}
	keys, err := f.keySets()
	if err != nil {
		return nil, err
	}
	report, err := f.ask(cmd, f.question(args), keys)
	if err != nil {
		return nil, err
	}
	if f.output.IsTable() {
		report.Write(cmd.OutOrStdout())
		return report, nil
	}
	return report, cli.Encode(cmd.OutOrStdout(), f.output.Format, report)
}

func (f *flags) ask(cmd *cobra.Command, q why.Question, keys map[string]string) (*why.Report, error) {
	if len(f.files) == 0 {
		return f.live(cmd, q, keys)
	}
	world, err := why.ReadFiles(f.files, cmd.InOrStdin())
	if err != nil {
		return nil, err
	}
	model, err := why.NewModel(world, why.Options{Completer: simulate.NewCompleter(), KeySets: keys})
	if err != nil {
		return nil, err
	}
	return model.Ask(q)
}
