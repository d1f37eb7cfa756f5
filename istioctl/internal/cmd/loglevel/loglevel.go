// Package loglevel shows and changes the log levels of proxies, for the commands of both kinds of proxies.
package loglevel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// Change is what is to become of the levels.
type Change struct {
	Level string
	Reset bool
	Port  int
}

// Add adds the flags.
func (c *Change) Add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.Level, "level", "", "levels to set, a comma-separated list of LEVEL, for all, or SCOPE:LEVEL; levels are trace, debug, info, warning, error, off")
	f.BoolVarP(&c.Reset, "reset", "r", false, "return to the levels of the start")
	f.IntVar(&c.Port, "proxy-admin-port", reach.AdminPort, "port of the proxy's admin interface")
}

// Validate refuses what no proxy takes, before one is changed and another not.
func (c *Change) Validate() error {
	if c.Level != "" && c.Reset {
		return errors.New("--level and --reset exclude each other")
	}
	known := []string{"trace", "debug", "info", "warning", "warn", "error", "critical", "off", "none"}
	for _, part := range c.parts() {
		if !slices.Contains(known, part.level) {
			return fmt.Errorf("--level: %q is none of %s", part.level, strings.Join(known, ", "))
		}
	}
	return nil
}

type part struct{ scope, level string }

func (c *Change) parts() []part {
	var out []part
	for _, text := range strings.Split(c.Level, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p := part{level: text}
		// The last separator divides: scopes of ztunnel are such as ztunnel::proxy.
		if i := strings.LastIndexAny(text, ":="); i >= 0 {
			p = part{scope: strings.TrimRight(text[:i], ":"), level: text[i+1:]}
		}
		out = append(out, p)
	}
	return out
}

// Envoy changes and prints the levels of an Envoy-like proxy.
func (c *Change) Envoy(ctx context.Context, mesh *reach.Mesh, pod reach.Pod, out io.Writer) error {
	path := "/logging"
	if c.Reset {
		// Envoy itself knows no reset, and does nothing; Istio starts it with this level.
		reset := path + "?level=warning"
		help, err := mesh.Get(ctx, pod, c.Port, "/help")
		if err != nil {
			return err
		}
		if strings.Contains(string(help), "?reset") {
			reset = path + "?reset"
		}
		if _, err := mesh.Post(ctx, pod, c.Port, reset); err != nil {
			return err
		}
	}
	for _, p := range c.parts() {
		query := url.Values{"level": {p.level}}
		if p.scope != "" {
			query = url.Values{p.scope: {p.level}}
		}
		if _, err := mesh.Post(ctx, pod, c.Port, path+"?"+query.Encode()); err != nil {
			return err
		}
	}
	return show(ctx, mesh, pod, c.Port, path, out)
}

// Ztunnel changes and prints the levels of a node proxy.
func (c *Change) Ztunnel(ctx context.Context, mesh *reach.Mesh, pod reach.Pod, out io.Writer) error {
	path := "/logging"
	var levels []string
	for _, p := range c.parts() {
		level := p.level
		if level == "warning" {
			level = "warn" // its own word
		}
		if p.scope != "" {
			level = p.scope + "=" + level
		}
		levels = append(levels, level)
	}
	switch {
	case c.Reset:
		path += "?reset"
	case len(levels) > 0:
		path += "?level=" + url.QueryEscape(strings.Join(levels, ","))
	}
	return show(ctx, mesh, pod, c.Port, path, out)
}

func show(ctx context.Context, mesh *reach.Mesh, pod reach.Pod, port int, path string, out io.Writer) error {
	data, err := mesh.Post(ctx, pod, port, path)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s:\n%s\n", pod, strings.TrimRight(string(data), "\n"))
	return nil
}

// Pods are the pods that are named, or that a selector selects.
func Pods(ctx context.Context, mesh *reach.Mesh, args []string, selector string) ([]reach.Pod, error) {
	if selector != "" {
		pods, err := mesh.Pods(ctx, mesh.Default, selector)
		if err == nil && len(pods) == 0 {
			err = fmt.Errorf("no pod with %s runs in namespace %s", selector, mesh.Default)
		}
		return pods, err
	}
	var out []reach.Pod
	for _, name := range args {
		pod, err := mesh.Find(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append(out, pod)
	}
	return out, nil
}
