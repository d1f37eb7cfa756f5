// Command conformance-istiod judges what the control plane tells ztunnels by what Istio's control plane tells them. Both run beside
// one API server; a client of each subscribes as a ztunnel does. After each step of the scenarios both have to have told the same, but
// for differences that are meant to be.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
)

// options are the command line.
type options struct {
	ours, theirs        string
	scenarios, intended string
	documents           string
	only                string
	patience            time.Duration
	all, verbose        bool
}

func main() {
	o := options{}
	flag.StringVar(&o.ours, "ours", "bin/pilot-discovery", "our control plane")
	flag.StringVar(&o.theirs, "theirs", "out/istiod/pilot-discovery", "Istio's, as `kindnode binaries -only pilot-discovery` builds it")
	flag.StringVar(&o.scenarios, "scenarios", "tests/wds", "directory of scenarios")
	flag.StringVar(&o.intended, "intended", "tests/wds/intended/differences.yaml", "differences that are meant to be")
	flag.StringVar(&o.documents, "documents", "docs/differences.md", "where users read of them")
	flag.StringVar(&o.only, "run", "", "regular expression of scenarios' names")
	flag.DurationVar(&o.patience, "patience", 5*time.Second, "how long both sides may take to agree after a step")
	flag.BoolVar(&o.all, "all", false, "print all differences of a step, and not the first ones only")
	flag.BoolVar(&o.verbose, "v", false, "print the differences that are meant to be, too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance-istiod:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) (bool, error) {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return false, fmt.Errorf("-run: %w", err)
	}
	scenarios, err := loadScenarios(o.scenarios, only)
	if err != nil {
		return false, err
	}
	table, err := loadIntended(o.intended, o.documents)
	if err != nil {
		return false, err
	}
	for _, program := range []string{o.ours, o.theirs} {
		if _, err := os.Stat(program); err != nil {
			return false, err
		}
	}
	bin, root, err := apiserver.Find()
	if err != nil {
		return false, err
	}
	crds, err := filepath.Glob(filepath.Join(root, "operator", "crds", "*.yaml"))
	if err != nil {
		return false, err
	}
	server, err := apiserver.Start(ctx, apiserver.Config{Bin: bin, CRDs: crds})
	if err != nil {
		return false, err
	}
	defer server.Stop()
	r := &report{out: out, table: table, all: o.all, verbose: o.verbose}
	b, err := newBed(ctx, o, server, r)
	if err != nil {
		return false, err
	}
	for len(scenarios) > 0 {
		// Those that want the same environment share the control planes.
		same, others := withSameEnvironment(scenarios)
		if err := b.judge(ctx, same); err != nil {
			return false, err
		}
		scenarios = others
	}
	return r.finish(o.only == ""), nil
}

// withSameEnvironment separates the scenarios that want the environment of the first one from the others.
func withSameEnvironment(scenarios []*scenario) (same, others []*scenario) {
	for _, s := range scenarios {
		if s.environment() == scenarios[0].environment() {
			same = append(same, s)
		} else {
			others = append(others, s)
		}
	}
	return same, others
}

var errSlow = errors.New("it takes too long")
