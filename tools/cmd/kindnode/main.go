// Command kindnode makes Kubernetes clusters by kind where no image registry can be reached.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const usage = `kindnode makes Kubernetes clusters by kind where no image registry can be reached.

  kindnode binaries         build the pinned programs
  kindnode image            make the node image
  kindnode up               create a cluster
  kindnode load ARCHIVE...  put image archives into its nodes
  kindnode env              print the environment to reach it, for eval
  kindnode e2e              cluster, mesh, tests, report, and delete it all
  kindnode down             delete the cluster, and with -all the private docker daemon

kindnode VERB -h prints the flags of a verb.
`

// options are the flags of all verbs; each verb registers those it reads.
type options struct {
	repo       string
	dir        string // everything kindnode keeps
	mirror     string
	dockerHost string // "auto", "private" or an address
	name       string
	image      string
	workers    int
	family     string
	kubeconfig string
	wait       time.Duration
	log        *slog.Logger
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kindnode:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	verbs := map[string]func(context.Context, *options, []string, io.Writer) error{
		"binaries": binaries, "image": image, "up": up, "load": load, "env": env, "e2e": e2e, "down": down,
	}
	if len(args) > 0 && slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		_, err := io.WriteString(out, usage)
		return err
	}
	if len(args) == 0 || verbs[args[0]] == nil {
		return fmt.Errorf("first argument must be one of binaries, image, up, load, env, e2e, down")
	}
	repo, err := findRepo()
	if err != nil {
		return err
	}
	o := &options{
		repo: repo,
		dir:  filepath.Join(repo, "out/kind"),
		log:  slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	return verbs[args[0]](ctx, o, args[1:], out)
}

// flags registers what all verbs have in common.
func (o *options) flags(verb string) *flag.FlagSet {
	fs := flag.NewFlagSet("kindnode "+verb, flag.ExitOnError)
	fs.StringVar(&o.dir, "dir", o.dir, "folder for everything that is built and kept")
	fs.StringVar(&o.mirror, "mirror", "http://deb.debian.org/debian", "Debian mirror for the nodes' operating system")
	fs.StringVar(&o.dockerHost, "docker-host", "auto", "docker daemon: an address, private (one of our own), or auto (the machine's, if it has one that can run kind)")
	fs.StringVar(&o.name, "name", "isthmus", "name of the cluster")
	return fs
}

// clusterFlags registers what concerns making a cluster.
func (o *options) clusterFlags(fs *flag.FlagSet) {
	fs.StringVar(&o.image, "image", "", "node image to use instead of making one")
	fs.IntVar(&o.workers, "workers", 2, "nodes beside the control plane")
	fs.StringVar(&o.family, "family", "ipv4", "ipv4, ipv6 or dual")
	fs.StringVar(&o.kubeconfig, "kubeconfig", "", "file to write (default DIR/NAME.kubeconfig)")
	fs.DurationVar(&o.wait, "wait", 5*time.Minute, "how long to wait for the nodes to be ready")
}

func (o *options) kubeconfigPath() string {
	if o.kubeconfig != "" {
		return o.kubeconfig
	}
	return filepath.Join(o.dir, o.name+".kubeconfig")
}

// findRepo walks up to the folder with go.work.
func findRepo() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.work above the working directory: run kindnode inside the repository")
		}
		dir = parent
	}
}

func splitList(s string) []string {
	var out []string
	for p := range strings.SplitSeq(s, ",") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out
}
