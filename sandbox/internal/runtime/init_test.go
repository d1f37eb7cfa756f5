package runtime

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/images"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/rootfs"
)

const (
	patience = time.Minute
	// gateVariable names a FIFO at which a first process waits until somebody has opened it, and closed it again.
	gateVariable = "SANDBOX_TEST_GATE"
	// shown is where containers see the test's directory.
	shown = "/run/shown"
)

func TestMain(m *testing.M) {
	if len(os.Args) < 3 || os.Args[1] != InitArgument {
		os.Exit(leak.Goroutines(m))
	}
	if gate := os.Getenv(gateVariable); gate != "" {
		f, err := os.Open(gate)
		if err == nil {
			_, err = io.Copy(io.Discard, f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		f.Close()
	}
	fmt.Fprintln(os.Stderr, Init(os.Args[2:]))
	os.Exit(1)
}

// spawned is what spawn has returned.
type spawned struct {
	process *process
	err     error
}

// spawn starts a container in the background, which sees dir.
func spawn(t *testing.T, dir string, argv []string, env map[string]string) (*container, <-chan spawned) {
	t.Helper()
	pod := &pod{runtime: &Runtime{cfg: Config{Images: images.New("")}}, object: &corev1.Pod{}}
	c := &container{pod: pod, spec: &corev1.Container{Image: "debian"}}
	mount, err := rootfs.New(rootfs.Spec{Scratch: t.TempDir(), Binds: []rootfs.Bind{{Source: dir, Target: shown}}})
	if err != nil {
		t.Fatal(err)
	}
	log, err := openLog(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	env["PATH"] = os.Getenv("PATH")
	done := make(chan spawned, 1)
	go func() {
		p, err := c.spawn(argv, env, mount, log)
		done <- spawned{p, err}
	}()
	return c, done
}

// result waits for what spawn returns.
func result(t *testing.T, done <-chan spawned) *process {
	t.Helper()
	select {
	case s := <-done:
		if s.err != nil {
			t.Fatal(s.err)
		}
		t.Cleanup(func() {
			_ = s.process.cmd.Process.Kill()
			<-s.process.done
			s.process.mount.Close()
			s.process.pidns.Close()
		})
		return s.process
	case <-time.After(patience):
		t.Fatal("the container is not started")
	}
	return nil
}

// TestProgramsRunBeforeAnythingReachesThem: nobody gets hold of a container whose first process is not its program yet. Commands would
// see the machine's processes then, and signals end what does not listen to them.
func TestProgramsRunBeforeAnythingReachesThem(t *testing.T) {
	dir := t.TempDir()
	gate := filepath.Join(dir, "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	c, done := spawn(t, dir, []string{"sleep", "infinity"}, map[string]string{gateVariable: shown + "/gate"})
	held := -1
	wait.Until(t, patience, "the first process is at the gate", func() (there bool) {
		fd, err := unix.Open(gate, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		held = fd
		return err == nil
	}, nil)
	select {
	case s := <-done:
		t.Errorf("the container is there before its program: %v", s.err)
		again := make(chan spawned, 1)
		again <- s
		done = again
	case <-time.After(100 * time.Millisecond): // only a container that should not be there needs time to appear
	}
	unix.Close(held)
	p := result(t, done)
	const want = "sleep\x00infinity\x00"
	if got, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.cmd.Process.Pid)); err != nil || string(got) != want {
		t.Errorf("the first process is %q, %v", got, err)
	}
	var out bytes.Buffer
	code, err := c.pod.runtime.execIn(t.Context(), c, p, []string{"cat", "/proc/1/cmdline"}, Streams{Stdout: &out})
	if err != nil || code != 0 || out.String() != want {
		t.Errorf("a command sees %q, %d, %v", out.String(), code, err)
	}
}

// What cannot be executed is a container that has ended, not one that is waited for.
func TestProgramsThatCannotRun(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "garbage"), []byte("garbage"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, done := spawn(t, dir, []string{shown + "/garbage"}, map[string]string{})
	p := result(t, done)
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatal("it runs")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
}
