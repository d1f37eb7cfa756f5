package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/sandbox"
)

// The test binary is the sandbox's supervisor, too.
func TestMain(m *testing.M) {
	if handled, exit := sandbox.Main(os.Args); handled {
		os.Exit(exit)
	}
	if echoMain(os.Args) {
		return
	}
	os.Exit(m.Run())
}

// built builds what the mesh runs, with the flags of `make build`, whose results the compiler remembers.
func built(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", dir + "/"}
	for _, program := range []string{"pilot/cmd/pilot-discovery", "ztunnel/cmd/ztunnel", "waypoint/cmd/waypoint", "cni/cmd/install-cni", "cni/cmd/istio-cni"} {
		args = append(args, "../../../"+program)
	}
	build := exec.CommandContext(t.Context(), "go", args...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	return dir
}

// TestShortSoak: what a run of seconds loses is a fact, however slow the machine; what grows is for long runs to say.
func TestShortSoak(t *testing.T) {
	o := options{
		bin: built(t), name: fmt.Sprintf("soak-%d", os.Getpid()), time: 12 * time.Second, connections: 200, period: 4 * time.Second,
		rate: 40, settle: 2 * time.Second, ttl: 10 * time.Second, pace: 2,
	}
	for _, part := range []string{"l4", "l7"} {
		t.Run(part, func(t *testing.T) {
			o.only = part
			var out strings.Builder
			begin := time.Now()
			ok, err := run(t.Context(), o, &out)
			if err != nil || !ok {
				t.Errorf("ok: %v, %v", ok, err)
			}
			for _, ratio := range []string{"lost", "fds-left", "goroutines-left"} {
				if !regexp.MustCompile(`(?m)^ratio soak-` + part + `-` + ratio + ` -?\d+\.\d+ <= \d+ ok$`).MatchString(out.String()) {
					t.Errorf("no good ratio %s", ratio)
				}
			}
			t.Logf("%s with the sandbox:\n%s", time.Since(begin).Round(time.Second), out.String())
		})
	}
}

func TestThereAreTwoParts(t *testing.T) {
	if _, err := run(t.Context(), options{only: "l5"}, io.Discard); err == nil {
		t.Error("a part that is not there was run")
	}
}

func TestLinesNoticeWhatIsNotTheSame(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(conn net.Conn, got []byte)
		wrong  bool
	}{
		"the same":   {func(conn net.Conn, got []byte) { _, _ = conn.Write(got) }, false},
		"a byte":     {func(conn net.Conn, got []byte) { got[len(got)-1]++; _, _ = conn.Write(got) }, true},
		"cut":        {func(conn net.Conn, got []byte) { _, _ = conn.Write(got[:len(got)-1]) }, true},
		"nothing":    {func(net.Conn, []byte) {}, true},
		"another id": {func(conn net.Conn, got []byte) { _, _ = conn.Write(message(nil, 8, 0, 100)) }, true},
	} {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			got := make([]byte, headLen+100)
			if _, err := io.ReadFull(far, got); err == nil {
				c.answer(far, got)
			}
		}()
		err := (&line{conn: near, id: 7}).exchange(100)
		if (err != nil) != c.wrong {
			t.Errorf("%s: %v", name, err)
		}
		near.Close()
	}
}

func TestLinesNoticeBytesAfterTheEnd(t *testing.T) {
	for more, wrong := range map[string]bool{"": false, "x": true} {
		l, err := net.Listen("tcp", "127.0.0.1:0") // of package net's pipes, one whose other end is closed takes no deadline
		if err != nil {
			t.Fatal(err)
		}
		near, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if _, err := io.WriteString(far, more); err != nil {
			t.Fatal(err)
		}
		far.Close()
		if err := (&line{conn: near}).finish(); (err != nil) != wrong {
			t.Errorf("%q after the end: %v", more, err)
		}
	}
}

func TestLossesTellWhatChanged(t *testing.T) {
	l := newLedger(nil)
	_ = l.change("a", func() error { return nil })
	_ = l.change("b", func() error {
		l.lose("x", errors.New("y"))
		return nil
	})
	n, losses := l.total()
	if n != 1 || len(losses) != 1 || !regexp.MustCompile(`x: y  \[b for 0\.0s, a 0\.0s ago\]$`).MatchString(losses[0].String()) {
		t.Errorf("%d: %v", n, losses)
	}
}

func TestLossesAreToldByStretches(t *testing.T) {
	l := newLedger(nil)
	for i := range 5 {
		l.lose(fmt.Sprintf("connection %d after %d messages", i, 7*i), errors.New("read 10.0.0.1:80->10.0.0."+strconv.Itoa(i)+":4711: reset"))
		l.lose("stream 1", errors.New("reset"))
	}
	n, told := l.total()
	if n != 10 || len(told) != 2 || !strings.Contains(told[0].String(), "connection 0 after 0 messages: ") || !strings.Contains(told[0].String(), "and 4 like it until ") {
		t.Errorf("%d: %v", n, told)
	}
	l.losses[0].last -= together // it has been quiet for long
	l.lose("connection 9 after 9 messages", l.losses[0].first.err)
	for i := range 2 * kept {
		l.lose(strings.Repeat("x", i+1), errors.New("y"))
	}
	if n, told := l.total(); n != 11+2*kept || len(told) != kept || told[2].n != 1 {
		t.Errorf("%d lost, %d told", n, len(told))
	}
}

func TestAChangeThatDoesNotComeTrueIsLost(t *testing.T) {
	l := newLedger(nil)
	stop := make(chan struct{})
	made := 0
	churn{"c", time.Millisecond, func(context.Context, int) error {
		if made++; made == 3 {
			close(stop)
			return errors.New("no")
		}
		return nil
	}}.run(t.Context(), stop, l, 1)
	if n, _ := l.total(); made < 3 || n == 0 {
		t.Errorf("%d changes made, %d lost", made, n)
	}
}

func TestRequestsThatArriveTwice(t *testing.T) {
	w := &web{last: map[uint64]uint64{}}
	for _, c := range []struct {
		id, n uint64
		again bool
	}{{1, 0, false}, {2, 0, false}, {1, 1, false}, {1, 1, true}, {2, 5, false}, {2, 4, true}} {
		if got := w.again(c.id, c.n); got != c.again {
			t.Errorf("request %d of client %d arrived before: %v", c.n, c.id, got)
		}
	}
}
