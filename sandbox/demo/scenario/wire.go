package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/sandbox/demo/wiretap"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/ns"
)

const (
	hbonePort = 15008
	tls13     = 0x0304
)

// capture records what crosses between the nodes while during runs.
func (b *Bed) capture(ctx context.Context, during func() error) ([]wiretap.Segment, error) {
	fabric, err := b.Sandbox.FabricNetNS(ctx)
	if err != nil {
		return nil, err
	}
	defer fabric.Close()
	dir, err := os.MkdirTemp("", "isthmus-demo-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "wire.pcap")
	// Of two nodes, all that crosses passes the first one's port, once.
	tcpdump := exec.CommandContext(ctx, "tcpdump", "-i", "node-1", "-U", "--immediate-mode", "-s", "0", "-Z", "root", "-w", file, "tcp")
	tcpdump.Cancel = func() error { return tcpdump.Process.Signal(syscall.SIGTERM) }
	if err := (ns.Set{Net: fabric}).Do(tcpdump.Start); err != nil {
		return nil, fmt.Errorf("start tcpdump: %w", err)
	}
	stop := func() error {
		_ = tcpdump.Process.Signal(syscall.SIGINT) // it is waited for in any case
		return tcpdump.Wait()
	}
	started := b.eventually(ctx, func() bool {
		info, err := os.Stat(file)
		return err == nil && info.Size() >= 24
	})
	if started != nil {
		return nil, errors.Join(errors.New("tcpdump does not capture"), stop())
	}
	err = during()
	time.Sleep(retryPause) // what was sent last is on its way through the capture's buffer
	if err := errors.Join(err, stop()); err != nil {
		return nil, err
	}
	recorded, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer recorded.Close()
	return wiretap.Read(recorded)
}

// Wire looks at what an eavesdropper between the nodes sees while Bookinfo is used for the first time.
func (b *Bed) Wire(ctx context.Context) {
	since := time.Now()
	segments, err := b.capture(ctx, func() error {
		b.Page(ctx)
		return nil
	})
	b.Report.Section("On the wire between the nodes")
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err != nil {
			return "", err
		}
		tunnelled, other := 0, 0
		for _, f := range wiretap.Flows(segments) {
			if f.Server.Port() == hbonePort {
				tunnelled += f.Bytes
			} else if !b.isControl(ctx, f) {
				other += f.Bytes
				b.Report.Detail("not in a tunnel: %s → %s, %d bytes", f.Client, f.Server, f.Bytes)
			}
		}
		if tunnelled < 10_000 || other > 0 {
			return "", expected("all of Bookinfo's bytes on port 15008", "%d bytes there and %d elsewhere", tunnelled, other)
		}
		return fmt.Sprintf("captured %d bytes of Bookinfo between the nodes: all to port %d, none beside it", tunnelled, hbonePort), nil
	})
	b.Report.Check(ctx, func(context.Context) (string, error) {
		versions := wiretap.TLSVersions(segments, hbonePort)
		if len(versions) != 1 || versions[tls13] == 0 {
			return "", expected("TLS 1.3 handshakes on port 15008", "versions %v", versions)
		}
		return fmt.Sprintf("%d TLS handshakes there, all TLS 1.3", versions[tls13]), nil
	})
	b.Report.Check(ctx, func(context.Context) (string, error) {
		for _, secret := range []string{"Shakespeare", "Comedy of Errors", "GET /", "HTTP/1.1", "reviewer"} {
			if wiretap.Contains(segments, secret) {
				return "", expected("nothing readable", "%q in the clear", secret)
			}
		}
		if len(segments) == 0 {
			return "", expected("captured packets", "none")
		}
		return fmt.Sprintf("in %d captured segments nothing of the page is readable (looked for its title, author, and HTTP itself)", len(segments)), nil
	})
	b.identities(ctx, since)
}

// isControl tells whether a flow is the proxies' own conversation with the control plane.
func (b *Bed) isControl(ctx context.Context, f wiretap.Flow) bool {
	istiod, err := b.pod(ctx, meshNamespace, "istiod")
	if err != nil {
		return false
	}
	for _, ip := range istiod.IPs {
		if f.Server.Addr().String() == ip || f.Client.Addr().String() == ip {
			return true
		}
	}
	return false
}

// identities shows both ends of one connection, from the logs of the proxies of both ends.
func (b *Bed) identities(ctx context.Context, since time.Time) {
	const from, to = "spiffe://cluster.local/ns/default/sa/bookinfo-productpage", "spiffe://cluster.local/ns/default/sa/bookinfo-details"
	for _, direction := range []string{"outbound", "inbound"} {
		var line string
		b.Report.Check(ctx, func(ctx context.Context) (string, error) {
			var err error
			line, err = b.findLog(ctx, since, `connection complete`, `direction="`+direction+`"`, `src.identity="`+from+`"`, `dst.identity="`+to+`"`)
			if err != nil {
				return "", err
			}
			return "the " + direction + " side's ztunnel logged productpage → details under mutual TLS, with both identities", nil
		})
		if line != "" {
			b.Report.Detail("%s", line)
		}
	}
}
