package dns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// withoutPrivilege runs f on a thread without NET_BIND_SERVICE, which is thrown away.
func withoutPrivilege(f func()) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&head, &data[0])
		if err == nil {
			data[0].Effective &^= 1 << unix.CAP_NET_BIND_SERVICE
			err = unix.Capset(&head, &data[0])
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	return <-done
}

// TestAnswersThatMayNotBeSent: what a pod gets of a ztunnel that may not use port 53 is told once, with the capability that it lacks.
func TestAnswersThatMayNotBeSent(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	port := conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	// To a socket on no address in particular every query is one to another address than its own.
	packets, err := netx.NewRedirected(conn, func(from netip.AddrPort) (answers net.PacketConn, err error) {
		if capErr := withoutPrivilege(func() { answers, err = net.ListenPacket("udp4", netip.AddrPortFrom(from.Addr(), 53).String()) }); capErr != nil {
			return nil, capErr
		}
		return answers, err
	})
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	log := &podtest.Log{}
	s := &Server{
		config: Config{Metrics: metrics, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), Identify: func(context.Context) *l4.Workload { return nil }},
		pod:    Pod{Namespace: "shop", Name: "curl"},
	}
	s.ctx, s.cancel = context.WithCancel(t.Context())
	s.serve(&dns.Server{PacketConn: packets, Handler: s.handler("udp")})
	defer s.Close()
	client, err := net.Dial("udp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	query, err := new(dns.Msg).SetQuestion("web.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write(query); err != nil {
		t.Fatal(err)
	}
	log.Wait(t, "level=WARN", "NET_BIND_SERVICE", "pod=shop/curl", "permission denied")
	s.unsent(os.ErrPermission)
	s.unsent(syscall.ECONNREFUSED)
	text := log.String()
	if n := strings.Count(text, "level=WARN"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, text)
	}
	if !strings.Contains(text, "level=DEBUG msg=\"DNS answer not sent\" pod=shop/curl error=\"connection refused\"") {
		t.Errorf("nothing of an asker that is gone:\n%s", text)
	}
}
