package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/sandbox"
)

// Bed is the running sandbox that the checks work on.
type Bed struct {
	Sandbox *sandbox.Client
	Report  *Report
	// Samples is the directory of the sample manifests.
	Samples string
	// L7 tells to show the ingress gateway and waypoints too.
	L7 bool
}

const meshNamespace = "istio-system"

// settle is how long a change may take to be in force everywhere.
const settle = time.Minute

// retryPause is between attempts that wait for something to become true.
const retryPause = 100 * time.Millisecond

// apply applies manifests to a namespace for those of their objects that name none.
func (b *Bed) apply(ctx context.Context, name, manifest string) error {
	if _, err := b.Sandbox.Apply(ctx, name, []byte(manifest)); err != nil {
		return fmt.Errorf("apply %s: %w", name, err)
	}
	return nil
}

// outcome of a command in a pod.
type outcome struct {
	stdout, stderr string
	code           int
}

func (o outcome) String() string {
	text := strings.TrimSpace(o.stdout + o.stderr)
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	return fmt.Sprintf("exit code %d, %q", o.code, text)
}

// exec runs a command in a pod, named as namespace/deploy/name or namespace/pod.
func (b *Bed) exec(ctx context.Context, where string, argv ...string) (outcome, error) {
	namespace, pod, _ := strings.Cut(where, "/")
	var stdout, stderr bytes.Buffer
	code, err := b.Sandbox.Exec(ctx, namespace, pod, "", argv, sandbox.ExecIO{Stdout: &stdout, Stderr: &stderr})
	return outcome{stdout.String(), stderr.String(), code}, err
}

// get fetches a URL from inside a pod; the body is in stdout, and the exit code is not 0 when there was no answer.
func (b *Bed) get(ctx context.Context, where, url string) (outcome, error) {
	return b.exec(ctx, where, "curl", "-sS", "-f", "--max-time", "8", url)
}

// mustGet is a call that has to succeed before its refusal means anything.
func (b *Bed) mustGet(ctx context.Context, where, url, contains string) error {
	var last error
	err := b.eventually(ctx, func() bool {
		o, err := b.get(ctx, where, url)
		switch {
		case err != nil:
			last = err
		case o.code != 0 || !strings.Contains(o.stdout, contains):
			last = expected(fmt.Sprintf("%s to get %s with %q in it", where, url, contains), "%s", o)
		default:
			last = nil
		}
		return last == nil
	})
	if err != nil {
		return cmpError(last, err)
	}
	return nil
}

// mustNotGet waits for a call to be refused, and then asks once more.
func (b *Bed) mustNotGet(ctx context.Context, where, url string) (outcome, error) {
	var o outcome
	var err error
	waited := b.eventually(ctx, func() bool {
		o, err = b.get(ctx, where, url)
		return err == nil && o.code != 0
	})
	if err != nil {
		return o, err
	}
	if waited != nil {
		return o, expected(fmt.Sprintf("%s to be refused %s", where, url), "%s", o)
	}
	if o, err = b.get(ctx, where, url); err == nil && o.code == 0 {
		return o, expected(fmt.Sprintf("%s to be refused %s every time", where, url), "%s", o)
	}
	return o, err
}

// eventually tries until ok or settle is over.
func (b *Bed) eventually(ctx context.Context, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for !ok() {
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return errors.New("it did not become true in time")
		}
	}
	return nil
}

// node is where a pod of an app runs, and the pod's name and address.
func (b *Bed) pod(ctx context.Context, namespace, app string) (sandbox.PodStatus, error) {
	status, err := b.Sandbox.Status(ctx)
	if err != nil {
		return sandbox.PodStatus{}, err
	}
	for _, p := range status.Pods {
		if p.Namespace == namespace && (p.Name == app || strings.HasPrefix(p.Name, app+"-")) && !p.Terminating {
			return p, nil
		}
	}
	return sandbox.PodStatus{}, fmt.Errorf("no pod %s in namespace %s", app, namespace)
}

// proxyLog returns the access log of all ztunnels since a moment.
func (b *Bed) proxyLog(ctx context.Context, since time.Time) (string, error) {
	status, err := b.Sandbox.Status(ctx)
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, p := range status.Pods {
		if p.Namespace != meshNamespace || !strings.HasPrefix(p.Name, "ztunnel-") {
			continue
		}
		log, err := b.Sandbox.Logs(ctx, p.Namespace, p.Name, "", false, since)
		if err != nil {
			return "", fmt.Errorf("log of %s: %w", p.Name, err)
		}
		text, err := io.ReadAll(log)
		log.Close()
		if err != nil {
			return "", fmt.Errorf("log of %s: %w", p.Name, err)
		}
		for line := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n") {
			fmt.Fprintf(&all, "%s: %s\n", p.Name, line)
		}
	}
	return all.String(), nil
}

// findLog waits for a line of the ztunnels' logs that matches all patterns.
func (b *Bed) findLog(ctx context.Context, since time.Time, patterns ...string) (string, error) {
	var line string
	err := b.eventually(ctx, func() bool {
		log, err := b.proxyLog(ctx, since)
		if err != nil {
			return false
		}
		line = match(log, patterns...)
		return line != ""
	})
	if err != nil {
		return "", expected("a line of a ztunnel's log with "+strings.Join(patterns, " and "), "none")
	}
	return line, nil
}

// match returns the first line that has all patterns, or "".
func match(log string, patterns ...string) string {
	compiled := make([]*regexp.Regexp, len(patterns))
	for i, p := range patterns {
		compiled[i] = regexp.MustCompile(p)
	}
	for line := range strings.SplitSeq(log, "\n") {
		all := true
		for _, p := range compiled {
			all = all && p.MatchString(line)
		}
		if all && line != "" {
			return strings.ReplaceAll(line, "\t", "  ")
		}
	}
	return ""
}

// background runs a command in a pod until stop is called, which returns what it printed.
func (b *Bed) background(ctx context.Context, where string, argv ...string) (stop func() string, printed func() string) {
	namespace, pod, _ := strings.Cut(where, "/")
	ctx, cancel := context.WithCancel(ctx)
	out := &lockedBuffer{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := b.Sandbox.Exec(ctx, namespace, pod, "", argv, sandbox.ExecIO{Stdout: out, Stderr: out}); err != nil && ctx.Err() == nil {
			fmt.Fprintf(out, "exec: %v\n", err)
		}
	}()
	return func() string {
		cancel()
		<-done
		return out.String()
	}, out.String
}

// lockedBuffer is written by a command while checks read it.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func cmpError(first, second error) error {
	if first != nil {
		return first
	}
	return second
}
