package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/kindnode/cluster"
	"github.com/isthmus-mesh/isthmus/tools/kindnode/daemon"
)

// suite is one run of tests against a cluster with the mesh.
type suite struct {
	*options
	images, istioctl, hub, tag string
	install                    string // arguments of istioctl install
	tests, packages            string
	timeout                    time.Duration
	artifacts, junit           string
	helm                       bool
	upgradeFrom, previous      string // a commit, and the folder of what was built from it
	keep                       bool
	testArgs                   []string
	took                       []phase
	programs                   []string // environment of the tests: programs that were made for them
}

type phase struct {
	name string
	took time.Duration
}

// e2e makes a cluster, installs the mesh from the images that make docker wrote, runs tests and deletes the cluster.
func e2e(ctx context.Context, o *options, args []string, out io.Writer) error {
	s := &suite{options: o}
	fs := o.flags("e2e")
	o.clusterFlags(fs)
	fs.StringVar(&s.images, "images", filepath.Join(o.repo, "out/images"), "folder with image archives, of which those for this architecture are loaded")
	fs.StringVar(&s.istioctl, "istioctl", filepath.Join(o.repo, "bin/istioctl"), "the program that installs the mesh")
	fs.StringVar(&s.hub, "hub", "docker.io/isthmus", "prefix of the images' names")
	fs.StringVar(&s.tag, "tag", "dev", "tag of the images")
	fs.StringVar(&s.install, "install", "--set profile=ambient", "arguments of istioctl install beyond hub and tag; - installs nothing")
	fs.StringVar(&s.tests, "tests", filepath.Join(o.repo, "tests/e2e"), "module with the tests")
	fs.StringVar(&s.packages, "packages", "./suites/...", "packages in it")
	fs.DurationVar(&s.timeout, "timeout", time.Hour, "how long the tests may take")
	fs.StringVar(&s.artifacts, "artifacts", filepath.Join(o.repo, "out/e2e"), "folder for what explains a failure")
	fs.StringVar(&s.junit, "junit", "", "file for the result of each specification, as JUnit writes it")
	fs.BoolVar(&s.helm, "helm", false, "build helm for the tests")
	fs.StringVar(&s.upgradeFrom, "upgrade-from", "", "commit whose version is upgraded in the tests; - is none")
	fs.BoolVar(&s.keep, "keep", false, "keep the cluster")
	if err := fs.Parse(args); err != nil {
		return err
	}
	s.testArgs = fs.Args()
	err := s.run(ctx)
	s.printTimes(out)
	return err
}

func (s *suite) run(ctx context.Context) error {
	if err := s.phase("cluster", func() error { return s.up(ctx) }); err != nil {
		return err
	}
	err := s.test(ctx)
	// What follows happens also after Ctrl-C: nobody else would clean up.
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		s.report(ctx)
	}
	if s.keep {
		s.log.Info("the cluster is kept", "kubeconfig", s.kubeconfigPath(), "docker", os.Getenv("DOCKER_HOST"))
		return err
	}
	return errors.Join(err, s.phase("delete", func() error { return s.clean(ctx) }))
}

func (s *suite) test(ctx context.Context) error {
	if err := s.phase("programs", func() error { return s.makePrograms(ctx) }); err != nil {
		return err
	}
	if err := s.phase("images", func() error { return s.load(ctx) }); err != nil {
		return err
	}
	if err := s.phase("mesh", func() error { return s.installMesh(ctx) }); err != nil {
		return err
	}
	return s.phase("tests", func() error { return s.goTest(ctx) })
}

func (s *suite) phase(name string, do func() error) error {
	start := time.Now()
	err := do()
	s.took = append(s.took, phase{name, time.Since(start)})
	return err
}

func (s *suite) load(ctx context.Context) error {
	var all []string
	for _, dir := range append([]string{s.images}, s.previousImages()...) {
		archives, err := filepath.Glob(filepath.Join(dir, "*-"+runtime.GOARCH+".tar"))
		if err != nil {
			return err
		}
		if len(archives) == 0 {
			return fmt.Errorf("no image archives (*-%s.tar) in %s: run make docker", runtime.GOARCH, dir)
		}
		all = append(all, archives...)
	}
	return cluster.New(s.log).Load(ctx, s.name, all)
}

// installMesh applies the definitions of the Gateway API, which belong to the cluster, and has istioctl do the rest.
func (s *suite) installMesh(ctx context.Context) error {
	if s.install == "-" {
		return nil
	}
	crds, err := os.Open(filepath.Join(s.repo, "operator/crds/gateway-api.gen.yaml"))
	if err != nil {
		return err
	}
	defer crds.Close()
	if out, err := s.kubectl(ctx, crds, "apply", "--server-side", "-f", "-"); err != nil {
		return fmt.Errorf("apply the definitions of the Gateway API: %w\n%s", err, out)
	}
	args := append([]string{"install", "-y", "--set", "hub=" + s.hub, "--set", "tag=" + s.tag}, strings.Fields(s.install)...)
	cmd := exec.CommandContext(ctx, s.istioctl, args...)
	cmd.Env = s.environment()
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", s.istioctl, strings.Join(args, " "), err)
	}
	return nil
}

func (s *suite) goTest(ctx context.Context) error {
	args := []string{"test", "-tags", "e2e", "-count=1", "-timeout", s.timeout.String(), "-v", s.packages}
	if s.junit != "" {
		args = append(args, "-ginkgo.junit-report="+s.junit)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, s.testArgs...)...)
	cmd.Dir = s.tests
	cmd.Env = append(s.environment(), "GOWORK=off")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("tests %s in %s: %w", s.packages, s.tests, err)
	}
	return nil
}

// environment is what the suites read (package lab). DOCKER_HOST is there since connect set it.
func (s *suite) environment() []string {
	return append(append(os.Environ(), s.programs...),
		"KUBECONFIG="+s.kubeconfigPath(), "ISTIOCTL="+s.istioctl, "HUB="+s.hub, "TAG="+s.tag,
		"SAMPLES="+filepath.Join(s.repo, "samples"), "OPERATOR="+filepath.Join(s.repo, "operator"), "ARTIFACTS="+s.artifacts)
}

// kubectl runs the kubectl of the control plane's node, so that none is needed on the machine.
func (s *suite) kubectl(ctx context.Context, stdin io.Reader, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "docker", append([]string{
		"exec", "-i", s.name + "-control-plane", "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf",
	}, args...)...)
	cmd.Stdin = stdin
	return cmd.CombinedOutput()
}

// report collects what explains a failure. The suites add their own; this also works when the mesh never came up.
func (s *suite) report(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	dir := filepath.Join(s.artifacts, "cluster")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.log.Warn("no report", "error", err)
		return
	}
	for name, args := range map[string][]string{
		"objects.txt":  {"get", "all,endpointslices", "-A", "-o", "wide"},
		"gateways.txt": {"get", "gateways.gateway.networking.k8s.io,httproutes.gateway.networking.k8s.io", "-A", "-o", "yaml"},
		"events.txt":   {"get", "events", "-A", "--sort-by=.lastTimestamp"},
		"pods.txt":     {"describe", "pods", "-A"},
		"nodes.txt":    {"describe", "nodes"},
		"istiod.log":   {"logs", "-n", "istio-system", "-l", "app=istiod", "--tail=-1", "--prefix"},
		"ztunnel.log":  {"logs", "-n", "istio-system", "-l", "app=ztunnel", "--tail=-1", "--prefix"},
		"cni-node.log": {"logs", "-n", "istio-system", "-l", "k8s-app=istio-cni-node", "--tail=-1", "--prefix"},
	} {
		text, err := s.kubectl(ctx, nil, args...)
		if err != nil {
			text = fmt.Appendf(text, "\n%v\n", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			s.log.Warn("report", "file", name, "error", err)
		}
	}
	if err := cluster.New(s.log).Logs(s.name, filepath.Join(dir, "nodes")); err != nil {
		s.log.Warn("logs of the nodes", "error", err)
	}
	s.log.Info("what explains the failure", "dir", s.artifacts)
}

// clean deletes the cluster, and stops the private daemon when this was its last.
func (s *suite) clean(ctx context.Context) error {
	lab := cluster.New(s.log)
	if err := lab.Down(s.name, s.kubeconfigPath()); err != nil {
		return err
	}
	private := s.private()
	if os.Getenv("DOCKER_HOST") != private.Host() || !daemon.Reachable(ctx, private.Host()) {
		return nil
	}
	left, err := lab.Names()
	if err != nil || len(left) > 0 {
		return err
	}
	return private.Stop(ctx)
}

func (s *suite) printTimes(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, p := range s.took {
		fmt.Fprintf(w, "%s\t%s\n", p.name, p.took.Round(time.Second/10))
	}
	w.Flush()
}
