package hbone

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
	"github.com/isthmus-mesh/isthmus/pkg/tlsrec"
)

// haproxyConfig takes CONNECTs over HTTP/2 under mutual TLS and hands them on in the same way.
const haproxyConfig = `global
  nbthread 1
defaults
  mode http
  timeout connect 60s
  timeout client 300s
  timeout server 300s
  timeout tunnel 300s
  http-reuse always
frontend in
  bind %[1]s ssl crt %[3]s ca-file %[4]s verify required alpn h2 ssl-min-ver TLSv1.3
  default_backend out
backend out
  server out %[2]s proto h2 alpn h2 ssl crt %[3]s ca-file %[4]s verify required ssl-min-ver TLSv1.3
`

// between are the foreign programs that stand between a client and a server of ours, a server to the one and a client to the other, by
// their command lines. Both have their TLS from OpenSSL, and HTTP/2 of their own.
func between(t *testing.T, listen, next string, f files) map[string][]string {
	t.Helper()
	config := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(config, fmt.Appendf(nil, haproxyConfig, listen, next, f.both, f.roots), 0o600); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(listen)
	to, toPort, _ := net.SplitHostPort(next)
	return map[string][]string{
		"haproxy": {"-db", "-f", config},
		// What it asks of a server's certificate is a DNS name, which no workload's has: it verifies its clients alone.
		"nghttpx": {
			"--conf=/dev/null", "--workers=1", "--http2-proxy", "--no-ocsp", "--npn-list=h2", "--tls-min-proto-version=TLSv1.3", "--errorlog-file=/dev/stderr",
			"--frontend=" + host + "," + port, "--backend=" + to + "," + toPort + ";;tls;proto=h2", "--insecure",
			"--verify-client", "--verify-client-cacert=" + f.roots, "--client-private-key-file=" + f.key, "--client-cert-file=" + f.chain,
			f.key, f.chain,
		},
	}
}

// startBetween runs a program until stop is called, which the end of the test does at the latest.
func startBetween(t *testing.T, name string, args []string, listen string) (stop func()) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s is needed: run `make deps` (%v)", name, err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", name, log.String())
		}
	})
	t.Cleanup(stop)
	wait.Until(t, time.Minute, name+" listens", func() bool {
		conn, err := net.Dial("tcp", listen)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, nil)
	return stop
}

// relaid is a mover whose two ends have a foreign program between them:
//
//	client application - relay - tunnel - HAProxy or nghttpx - tunnel - relay - server application, which echoes
func relaid(t *testing.T, program string) *mover {
	t.Helper()
	ca, err := authority()
	if err != nil {
		t.Fatal(err)
	}
	issue := func(account string) *certs.Workload {
		w, err := ca.Issue(t.Context(), spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: account})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	us, them := issue("us"), issue("them")
	m := bareMover(t)
	server := listen(t, func(nc net.Conn) {
		secured, err := current.server.Server(deadline(t), nc, certs.HBONEServerConfig(func() (*certs.Workload, error) { return us, nil }))
		if err != nil {
			nc.Close()
			return
		}
		if id, ok := certs.PeerID(secured.ConnectionState()); !ok || id != them.ID {
			t.Errorf("%s shows the identity %s", program, id)
		}
		m.serveOn(secured)
	})
	addr := tcp.Free(t)
	stop := startBetween(t, program, between(t, addr, server.Addr().String(), pemFiles(t, them))[program], addr)
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	secured, err := current.client.Client(deadline(t), nc, certs.HBONEClientConfig(us, []string{them.ID.String()}))
	if err != nil {
		t.Fatal(err)
	}
	m.dialled(secured, stop)
	return m
}

// rekey has the keys of one side's connection changed, and asks the peer to change its own.
func (m *mover) rekey(side int) {
	m.t.Helper()
	if err := innermost(m.lives[side].c.nc).(*tlsrec.Conn).UpdateKeys(true); err != nil {
		m.t.Error(err)
	}
}

// once is a talk that stops when something has come back.
func once(app *net.TCPConn, talk func(*net.TCPConn, <-chan struct{}, *atomic.Int64) error) error {
	stop, moved, ended := make(chan struct{}), atomic.Int64{}, make(chan error, 1)
	go func() { ended <- talk(app, stop, &moved) }()
	for {
		select {
		case err := <-ended:
			return err
		case <-time.After(time.Millisecond):
			if moved.Load() > 0 {
				close(stop)
				return <-ended
			}
		}
	}
}

// TestBehindOpenSSL: HAProxy and nghttpx, as servers to a client of ours and as clients to a server, carry streams that lose, double and
// change no byte; with records of our own also while both ends are moved, and keys are updated before, amid and after.
func TestBehindOpenSSL(t *testing.T) {
	if current.plain {
		return // there is no such peer
	}
	for program, ends := range map[string]bool{
		"haproxy": true,
		"nghttpx": false, // keeps the end of a tunnel's request to itself while there may be more of the response
	} {
		t.Run(program, func(t *testing.T) {
			converse := talk
			if !ends {
				converse = func(app *net.TCPConn, stop <-chan struct{}, moved *atomic.Int64) error {
					return talkOn(app, stop, moved, func() error { return nil })
				}
			}
			m := relaid(t, program)
			stop := make(chan struct{})
			var moved atomic.Int64
			var talks sync.WaitGroup
			for range 4 {
				app := m.open()
				talks.Go(func() {
					if err := converse(app, stop, &moved); err != nil {
						t.Error(err)
					}
				})
			}
			m.lives[1] = <-m.serve
			idle := m.open()
			for n := range 12 {
				before := moved.Load()
				wait.Until(t, 2*time.Minute, "something passes", func() bool { return moved.Load() >= before+300_000 || t.Failed() }, nil)
				if current.client == Standard || current.server == Standard {
					continue
				}
				side := n / 2 % 2
				m.rekey(side)
				if n%2 == 0 {
					m.refuse(side)
				} else {
					m.move(side)
				}
				m.rekey(side)
			}
			close(stop)
			talks.Wait()
			for what, app := range map[string]*net.TCPConn{"opened after the moves": m.open(), "idle meanwhile": idle} {
				app.SetDeadline(time.Now().Add(time.Minute))
				if err := once(app, converse); err != nil {
					t.Errorf("a stream that was %s: %v", what, err)
				}
			}
			select {
			case <-m.serve:
				t.Errorf("%s has opened a second connection", program)
			default:
			}
		})
	}
}
