// Command conformance-envoy judges the control plane and the L7 engine by the real Envoy. It runs Envoy and our engine as two pods of
// one waypoint and of one gateway, configured by our control plane from the fixtures, sends the same requests through both, and
// compares the answers with each other and with what the fixtures expect. It needs root, for network namespaces of its own.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	bin, envoy, fixtures, samples string
	engine                        string
	istiod                        string
	h2spec                        string
	only                          string
	settle                        time.Duration
	verbose, keep                 bool
}

func main() {
	o := options{}
	inside := flag.Bool("inside", false, "set by the command itself, in its own namespaces")
	flag.StringVar(&o.bin, "bin", "bin", "directory of pilot-discovery and waypoint")
	flag.StringVar(&o.envoy, "envoy", "out/envoy/envoy", "the real Envoy")
	flag.StringVar(&o.fixtures, "fixtures", "tests/conformance", "directory of fixtures")
	flag.StringVar(&o.samples, "samples", "samples", "directory of the samples, which fixtures name")
	flag.StringVar(&o.engine, "engine", "both", "both; envoy: then our engine is not compared; or isthmus, with -h2spec")
	flag.StringVar(&o.istiod, "istiod", "", "Istio's control plane, as `kindnode binaries -only pilot-discovery` builds it: Envoy is configured by that one then")
	flag.StringVar(&o.h2spec, "h2spec", "", "run this HTTP/2 conformance tester against the engine instead of the fixtures")
	flag.DurationVar(&o.settle, "settle", 10*time.Second, "how long answers may be other than expected after the configuration has changed")
	flag.StringVar(&o.only, "run", "", "regular expression of fixtures' names")
	flag.BoolVar(&o.verbose, "v", false, "print each request, and keep the logs of the processes")
	flag.BoolVar(&o.keep, "keep", false, "wait for an interrupt at the end")
	flag.Parse()
	if !*inside {
		os.Exit(isolate())
	}
	runtime.LockOSThread() // children die with the thread that starts them
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance-envoy:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// isolate runs this command again, in network and mount namespaces that end with it.
func isolate() int {
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", append([]string{"-inside"}, os.Args[1:]...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "GODEBUG=http2xconnect=1") // backends take WebSockets over HTTP/2
	signal.Ignore(os.Interrupt)                               // it goes to the whole group; the inner process ends in order
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return max(exit.ExitCode(), 1)
		}
		fmt.Fprintln(os.Stderr, "conformance-envoy: new namespaces (root is needed):", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, o options, out io.Writer) (bool, error) {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return false, fmt.Errorf("-run: %w", err)
	}
	fixtures, err := loadFixtures(o.fixtures, o.samples, only)
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "conformance-envoy-")
	if err != nil {
		return false, err
	}
	if o.verbose {
		fmt.Fprintln(out, "logs and configuration:", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	bed, err := newTestbed(ctx, o, dir)
	if err != nil {
		return false, err
	}
	defer bed.close()
	if o.h2spec != "" {
		return bed.h2spec(ctx, out)
	}
	report := &report{out: out, verbose: o.verbose, documented: map[string]bool{}}
	if err := bed.judge(ctx, fixtures, report); err != nil {
		bed.printLogs(out)
		return false, err
	}
	if o.keep {
		fmt.Fprintln(out, "waiting for an interrupt")
		<-ctx.Done()
	}
	return report.finish(bed), nil
}

// printLogs shows the ends of the logs, when something could not be judged at all.
func (b *testbed) printLogs(out io.Writer) {
	logs, _ := filepath.Glob(filepath.Join(b.dir, "*.log"))
	for _, file := range logs {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
		fmt.Fprintf(out, "--- %s\n%s\n", filepath.Base(file), bytes.Join(lines[max(0, len(lines)-15):], []byte("\n")))
	}
}
