// Command arm64test proves on any machine that the project runs on 64-bit ARM: it runs the programs of all images in user-mode
// emulation, and then, in an emulated machine with a real kernel of that architecture, tests that need one: the redirection of
// connections, network namespaces, and the tunnel between two pods. `make test-arm64` calls it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "arm64test:", err)
		os.Exit(1)
	}
}

// options of one call.
type options struct {
	root, bin, out, release string
	kernel, kernelRelease   string
	tags, skip              string
	packages                []string
	timeout                 time.Duration
	memory, processors      int
	peers                   bool
}

func run(ctx context.Context, args []string) error {
	var o options
	var packages string
	f := flag.NewFlagSet("arm64test", flag.ContinueOnError)
	f.StringVar(&o.root, "root", ".", "the repository")
	f.StringVar(&o.bin, "bin", "out/images/bin/arm64", "the programs, as imagebuild leaves them; empty: none is run")
	f.StringVar(&o.out, "out", "out/arm64", "where results and what is fetched go")
	f.StringVar(&o.kernel, "kernel", "linux-image-cloud-arm64", "Debian's package of the kernel")
	f.StringVar(&o.release, "debian", "bookworm", "release of Debian")
	f.StringVar(&o.kernelRelease, "kernel-debian", "bookworm", "release of Debian that the kernel is of")
	f.StringVar(&packages, "packages", "pkg/netx,ztunnel/internal/proxy,ztunnel/internal/inpod,cni/redirect", "directories of the tests to run in the machine; empty: no machine")
	f.StringVar(&o.tags, "tags", "", "build tags of the tests")
	f.StringVar(&o.skip, "skip", newerKernel, "tests not to run")
	f.BoolVar(&o.peers, "peers", false, "the machine has programs that tests talk with: openssl, haproxy, nghttpx")
	f.DurationVar(&o.timeout, "timeout", 30*time.Minute, "of the machine")
	f.IntVar(&o.memory, "memory", 1536, "of the machine, in MiB")
	f.IntVar(&o.processors, "processors", 2, "of the machine")
	if err := f.Parse(args); err != nil {
		return err
	}
	root, err := filepath.Abs(o.root)
	if err != nil {
		return err
	}
	o.root = root
	for _, p := range []*string{&o.bin, &o.out} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(root, *p)
		}
	}
	if packages != "" {
		o.packages = strings.Split(packages, ",")
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	if o.bin != "" {
		err = o.versions(ctx)
	}
	if len(o.packages) > 0 {
		err = errors.Join(err, o.machine(ctx))
	}
	return err
}

// versions runs the programs of the mesh in user-mode emulation. Those without a version command must at least start.
func (o options) versions(ctx context.Context) error {
	var problems []error
	for _, program := range []struct{ name, argument string }{
		{"pilot-discovery", "version"},
		{"ztunnel", "version"},
		{"waypoint", "version"},
		{"install-cni", "version"},
		{"istioctl", "--help"},
		{"istio-cni", ""},
		{"server", "--build-version"},
		{"client", "--help"},
		{"sleep", "0"},
	} {
		args := []string{filepath.Join(o.bin, program.name)}
		if program.argument != "" {
			args = append(args, program.argument)
		}
		limited, cancel := context.WithTimeout(ctx, time.Minute)
		cmd := exec.CommandContext(limited, "qemu-aarch64-static", args...)
		cmd.Env = append(os.Environ(), "CNI_COMMAND=VERSION")
		cmd.Stdin = strings.NewReader(`{"cniVersion":"1.0.0"}`)
		out, err := cmd.CombinedOutput()
		cancel()
		// Some end with an error after --help, having printed it.
		if err != nil && !(program.argument == "--help" && strings.Contains(string(out), "Usage")) {
			problems = append(problems, fmt.Errorf("%s %s: %w: %s", program.name, program.argument, err, out))
			continue
		}
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		fmt.Printf("ok   %-16s %s\n", program.name, first)
	}
	return errors.Join(problems...)
}
