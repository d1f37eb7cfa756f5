package upgradebed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/sandbox/demo/wiretap"
)

// tunnelPort is that of HBONE.
const tunnelPort = 15008

// tap is an eavesdropper on the wire between the pods.
type tap struct {
	cmd   *exec.Cmd
	ended chan error

	mu    sync.Mutex // guards watch
	watch *wiretap.Watch
}

// secrets are what the applications say, none of which may be readable on the wire: of the echoes, of conversations, of gRPC.
func secrets() []string {
	return []string{idleWords, saying[:10], "/bench.Upgrade", "CONNECT", "PRI * HTTP/2.0", serverIP + ":" + echoPort}
}

// startTap returns when packets are captured.
func startTap(ctx context.Context, netns string) (*tap, error) {
	t := &tap{ended: make(chan error, 1), watch: wiretap.NewWatch(tunnelPort, secrets()...)}
	t.cmd = exec.CommandContext(ctx, "ip", "netns", "exec", netns,
		"tcpdump", "-i", "eth0", "-U", "-B", "65536", "-s", "0", "-Z", "root", "-w", "-", "tcp")
	t.cmd.Cancel = func() error { return t.cmd.Process.Signal(syscall.SIGTERM) }
	out, err := t.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := t.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start tcpdump: %w", err)
	}
	in := bufio.NewReaderSize(out, 1<<20)
	if _, err := in.Peek(4); err != nil { // it writes the file's head when it captures
		_ = t.cmd.Process.Kill()
		return nil, errors.Join(fmt.Errorf("tcpdump does not capture: %w", err), t.cmd.Wait())
	}
	go func() {
		err := wiretap.Each(in, func(s wiretap.Segment) {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.watch.See(s)
		})
		_, _ = io.Copy(io.Discard, in) // so that tcpdump can end
		t.ended <- errors.Join(err, t.cmd.Wait())
	}()
	return t, nil
}

// findings are those up to now.
func (t *tap) findings() wiretap.Findings {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.watch.Findings()
}

// until returns when so many bytes have crossed since the tap began.
func (t *tap) until(ctx context.Context, bytes int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for t.findings().Total() < bytes {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%d bytes are awaited, the tap sees %+v", bytes, t.findings())
		}
	}
	return nil
}

func (t *tap) close() error {
	_ = t.cmd.Process.Signal(syscall.SIGINT) // it may have ended
	return <-t.ended
}
