// Package podtest gives tests two pods on one wire: network namespaces with the redirection in place.
package podtest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// Addresses of the pods' interfaces.
const (
	ClientIP  = "10.77.0.1"
	ServerIP  = "10.77.0.2"
	ClientIP6 = "fd00:77::1"
	ServerIP6 = "fd00:77::2"
)

const redirection = `table inet mesh {
 chain out { type nat hook output priority -100; meta mark and 0xfff == 0x539 return; ip daddr != 127.0.0.0/8 meta l4proto tcp redirect to :15001; ip6 daddr != ::1 meta l4proto tcp redirect to :15001; }
 chain in { type nat hook prerouting priority -100; tcp dport != 15008 meta l4proto tcp redirect to :15006; }
 chain mark_in { type filter hook prerouting priority -150; meta mark and 0xfff == 0x539 ct mark set 0x111; }
 chain mark_out { type route hook output priority -150; ct mark and 0xfff == 0x111 meta mark set 0x111; }
}`

// Pair is the two pods' namespaces, by path.
type Pair struct{ Client, Server string }

// NewPair makes two namespaces that are taken away with the test.
func NewPair(t testing.TB) Pair {
	t.Helper()
	suffix := fmt.Sprint(os.Getpid(), "-", time.Now().UnixNano()%1e6)
	suffix = strings.ReplaceAll(suffix, " ", "")
	names := []string{"isthprx-a" + suffix, "isthprx-b" + suffix}
	for _, name := range names {
		Run(t, "", "ip", "netns", "add", name)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	}
	Run(t, "", "ip", "link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
	for i, ips := range [][2]string{{ClientIP, ClientIP6}, {ServerIP, ServerIP6}} {
		for _, line := range []string{
			"link set lo up", "link set eth0 up", "addr add " + ips[0] + "/24 dev eth0", "addr add " + ips[1] + "/64 dev eth0 nodad",
			"rule add fwmark 0x111/0xfff pref 32764 lookup 100", "route add local default dev lo table 100",
			"-6 rule add fwmark 0x111/0xfff pref 32764 lookup 100", "-6 route add local default dev lo table 100",
		} {
			Run(t, "", append([]string{"ip", "-n", names[i]}, strings.Fields(line)...)...)
		}
		Run(t, redirection, "ip", "netns", "exec", names[i], "nft", "-f", "-")
	}
	return Pair{Client: "/run/netns/" + names[0], Server: "/run/netns/" + names[1]}
}

// StopRedirecting takes the redirection out of a namespace.
func StopRedirecting(t testing.TB, path string) {
	t.Helper()
	Run(t, "", "ip", "netns", "exec", strings.TrimPrefix(path, "/run/netns/"), "nft", "delete", "table", "inet", "mesh")
}

// Open returns a Network in a namespace; applications use it without a mark, proxies with theirs.
func Open(t testing.TB, path string, mark uint32) *netx.NS {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netx.NewNS(file, netx.Options{Mark: mark})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// Run runs a command that must succeed.
func Run(t testing.TB, stdin string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// Greet serves an application: each connection is greeted with the address it comes from, and echoed.
func Greet(t testing.TB, ns *netx.NS, addr string) {
	t.Helper()
	Serve(t, ns, addr, func(conn net.Conn) {
		host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		fmt.Fprintf(conn, "hello %s\n", host)
		_, _ = io.Copy(conn, conn)
	})
}

// Serve serves an application, which has each connection on a goroutine of its own until it returns.
func Serve(t testing.TB, ns *netx.NS, addr string, app func(net.Conn)) {
	t.Helper()
	listener, err := ns.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				app(conn)
			}()
		}
	}()
}

// Log collects the lines of several goroutines.
type Log struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String is all lines so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Wait fails the test when the log does not come to hold all texts.
func (l *Log) Wait(t testing.TB, texts ...string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		log, missing := l.String(), ""
		for _, text := range texts {
			if !strings.Contains(log, text) {
				missing = text
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("the log lacks %s", missing)
			return
		}
	}
}
