package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/isthmus-mesh/isthmus/pkg/testkit"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/budget"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// count adds up the series of a metric whose labels have the given values, among others.
func (b *bed) count(t *testing.T, name string, values ...string) (sum float64) {
	t.Helper()
	if strings.HasPrefix(name, "istio_ztunnel_workload_") {
		_ = b.shared.Register(b.metrics, func() time.Duration { return 0 }) // once
	}
	families, err := b.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var has []string
			for _, l := range m.GetLabel() {
				has = append(has, l.GetValue())
			}
			found := 0
			for _, v := range values {
				if strings.Contains("\n"+strings.Join(has, "\n")+"\n", "\n"+v+"\n") {
					found++
				}
			}
			if found == len(values) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func (b *bed) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	wait.Until(t, 60*time.Second, what, ok, nil)
}

// knock connects to the server's tunnel port from the client's pod, as a proxy does that is not ours.
func (b *bed) knock(t *testing.T) net.Conn {
	t.Helper()
	conn, err := b.tryKnock(t)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func (b *bed) tryKnock(t *testing.T) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	conn, err := podtest.Open(t, b.pair.Client, 0x539).Dial(ctx, "tcp", netip.AddrPortFrom(netip.MustParseAddr(serverIP), l4.HBONEPort), netip.Addr{})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	return conn, nil
}

// turnedAway knocks and is refused: the reset may come while it still connects.
func (b *bed) turnedAway(t *testing.T) {
	t.Helper()
	conn, err := b.tryKnock(t)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one more than there may be is not refused: %v", err)
	}
}

// enter shakes hands with some certificate, and returns the first thing that the server says: its SETTINGS, or why not.
func (b *bed) enter(t *testing.T, own ...tls.Certificate) (*tls.Conn, error) {
	t.Helper()
	conn := tls.Client(b.knock(t), &tls.Config{
		Certificates: own, NextProtos: []string{"h2"}, InsecureSkipVerify: true, //nolint:gosec // the client is the one that is tested
	})
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return nil, err
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		return nil, err
	}
	f, err := framer.ReadFrame()
	if err != nil {
		return nil, err
	}
	if _, ok := f.(*http2.SettingsFrame); !ok {
		return nil, fmt.Errorf("the server begins with %v", f.Header().Type)
	}
	return conn, nil
}

func uris(names ...string) (all []*url.URL) {
	for _, n := range names {
		u, err := url.Parse(n)
		if err != nil {
			panic(err)
		}
		all = append(all, u)
	}
	return all
}

const clientID = "spiffe://cluster.local/ns/shop/sa/client"

func TestCertificateTricks(t *testing.T) {
	b := newBed(t)
	foreign, err := testkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	good := x509.Certificate{URIs: uris(clientID)}
	with := func(edit func(*x509.Certificate)) x509.Certificate {
		c := good
		edit(&c)
		return c
	}
	forge := func(ca *testkit.CA, c x509.Certificate) tls.Certificate {
		cert, err := ca.Forge(c)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	if _, err := b.enter(t, forge(b.ca, good)); err != nil {
		t.Fatalf("a good certificate: %v", err)
	}
	for name, tt := range map[string]struct {
		cert   []tls.Certificate
		reason string
		log    string
	}{
		"expired": {
			[]tls.Certificate{forge(b.ca, with(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }))},
			"certificate expired or not yet valid", "expired",
		},
		"not yet valid": {
			[]tls.Certificate{forge(b.ca, with(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }))},
			"certificate expired or not yet valid", "not yet valid",
		},
		"foreign root":     {[]tls.Certificate{forge(foreign, good)}, "certificate of unknown authority", "unknown authority"},
		"no names":         {[]tls.Certificate{forge(b.ca, x509.Certificate{})}, "failed handshake", "no SPIFFE ID"},
		"a host name only": {[]tls.Certificate{forge(b.ca, x509.Certificate{DNSNames: []string{"client.shop"}})}, "failed handshake", "no SPIFFE ID"},
		"a URI that is no SPIFFE ID": {
			[]tls.Certificate{forge(b.ca, x509.Certificate{URIs: uris("https://cluster.local/ns/shop/sa/client")})},
			"failed handshake", "no SPIFFE ID",
		},
		"two identities": {
			[]tls.Certificate{forge(b.ca, x509.Certificate{URIs: uris(clientID, "spiffe://cluster.local/ns/bank/sa/vault")})},
			"failed handshake", "names 2 URIs",
		},
		"another trust domain": {
			[]tls.Certificate{forge(b.ca, x509.Certificate{URIs: uris("spiffe://elsewhere/ns/shop/sa/client")})},
			"failed handshake", "another trust domain",
		},
		"a server's only": {
			[]tls.Certificate{forge(b.ca, with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }))},
			"invalid certificate", "incompatible key usage",
		},
		"none": {nil, "failed handshake", "didn't provide a certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			before := b.count(t, "istio_ztunnel_peers_cut_total", directionInbound, tt.reason)
			if conn, err := b.enter(t, tt.cert...); err == nil {
				// TLS 1.3 clients learn it with the first read, which comes after what the server has said before.
				if _, err := io.Copy(io.Discard, conn); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("let in: %v", err)
				}
			}
			b.until(t, "it is counted", func() bool {
				return b.count(t, "istio_ztunnel_peers_cut_total", directionInbound, tt.reason) == before+1
			})
			b.log.Wait(t, tt.log)
		})
	}
}

// Who shows an identity at an address that belongs to somebody else is believed to have the key, which is what policies ask about, but is
// not taken for the pod that the address belongs to.
func TestAnIdentityElsewhereIsNotThePodThere(t *testing.T) {
	b := newBed(t)
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
	stolen, err := b.ca.Forge(x509.Certificate{URIs: uris("spiffe://cluster.local/ns/bank/sa/vault")})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := b.enter(t, stolen)
	if err != nil {
		t.Fatal(err)
	}
	block := []byte{0x02, 7} // :method, not indexed
	block = append(append(block, "CONNECT"...), 0x01, byte(len(serverIP)+1+len(appPort)))
	block = append(block, serverIP+":"+appPort...)
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	for data := ""; !strings.Contains(data, "\n"); { // the application's greeting
		f, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := f.(*http2.DataFrame); ok {
			data += string(d.Data())
		}
	}
	conn.Close()
	line := ""
	b.until(t, "the connection is logged", func() bool {
		for l := range strings.Lines(b.log.String()) {
			if strings.Contains(l, "connection complete") && strings.Contains(l, `src.identity="spiffe://cluster.local/ns/bank/sa/vault"`) {
				line = l
			}
		}
		return line != ""
	})
	if strings.Contains(line, "src.workload") {
		t.Errorf("attributed to the pod at the address: %s", line)
	}
}

func TestHalfOpenHandshakesAreBounded(t *testing.T) {
	b := newBedWith(t, budget.Limits{}, func(c *Config) { c.MaxHandshakes, c.HandshakeTimeout = 8, time.Hour })
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
	const most = 2 // a quarter, of one address
	for range most {
		b.knock(t)
	}
	b.until(t, "they are in their handshakes", func() bool {
		s := &b.proxies[1].shakers
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.set[netip.MustParseAddr(clientIP)] == most
	})
	b.turnedAway(t)
	b.until(t, "it is counted", func() bool {
		return b.count(t, "istio_ztunnel_workload_shed_total", "server", "handshakes_of_peer") == 1 &&
			b.count(t, "istio_ztunnel_peers_cut_total", "too many handshakes") == 1
	})
	b.log.Wait(t, `reason="handshakes_of_peer"`)
}

func TestSlowHandshakesAreCut(t *testing.T) {
	b := newBedWith(t, budget.Limits{}, func(c *Config) { c.HandshakeTimeout = time.Second })
	for name, say := range map[string]string{"silent": "", "in the middle of a record": "\x16\x03\x01\x02\x00\x01"} {
		t.Run(name, func(t *testing.T) {
			before := b.count(t, "istio_ztunnel_peers_cut_total", directionInbound, "no handshake in time")
			conn := b.knock(t)
			if _, err := io.WriteString(conn, say); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("not cut: %v", err)
			}
			b.until(t, "it is counted", func() bool {
				return b.count(t, "istio_ztunnel_peers_cut_total", directionInbound, "no handshake in time") == before+1
			})
		})
	}
}

func TestFloodsOfAPeerWithACertificateAreCut(t *testing.T) {
	b := newBed(t)
	cert, err := b.ca.Forge(x509.Certificate{URIs: uris(clientID)})
	if err != nil {
		t.Fatal(err)
	}
	for reason, flood := range map[string]func(*http2.Framer) error{
		"PING flood":     func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) },
		"SETTINGS flood": func(f *http2.Framer) error { return f.WriteSettings() },
	} {
		t.Run(reason, func(t *testing.T) {
			conn, err := b.enter(t, cert)
			if err != nil {
				t.Fatal(err)
			}
			read := make(chan struct{})
			go func() {
				defer close(read)
				_, _ = io.Copy(io.Discard, conn)
			}()
			for framer := http2.NewFramer(conn, nil); err == nil; {
				err = flood(framer)
			}
			<-read
			b.until(t, "it is counted", func() bool {
				return b.count(t, "istio_ztunnel_peers_cut_total", directionInbound, reason) == 1
			})
			b.log.Wait(t, `reason="`+reason+`"`)
		})
	}
}

func TestAFloodedWorkloadRefusesAndRecovers(t *testing.T) {
	b := newBedWith(t, budget.Limits{Connections: 60, PerWorkload: 20}, func(c *Config) { c.HandshakeTimeout = time.Hour })
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
	var idle []net.Conn
	for range 19 {
		idle = append(idle, b.knock(t))
	}
	b.until(t, "the flood has come", func() bool { return b.count(t, "istio_ztunnel_workload_connections", "server") == 19 })
	idle = append(idle, b.knock(t))
	b.turnedAway(t)
	b.until(t, "it is counted", func() bool { return b.count(t, "istio_ztunnel_workload_shed_total", "server", "connections") >= 1 })
	b.log.Wait(t, "connection shed", "share of the node's connections")
	for _, c := range idle {
		c.Close()
	}
	b.until(t, "its connections are given back", func() bool { return b.count(t, "istio_ztunnel_workload_connections", "server") == 0 })
	if _, _, err := b.dial(t); err != nil {
		t.Errorf("after the flood: %v", err)
	}
}

func TestAFloodedNeighbourLeavesRoom(t *testing.T) {
	b := newBedWith(t, budget.Limits{Connections: 90}, func(*Config) {})
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
	neighbour := b.shared.Open(budget.Name{Namespace: "noisy", Pod: "neighbour"})
	defer neighbour.Close()
	got := 0
	for neighbour.Admit() {
		got++
	}
	if got != 45 {
		t.Errorf("a flood takes %d connections of 90", got)
	}
	for range 8 {
		if _, _, err := b.dial(t); err != nil {
			t.Errorf("beside a flood: %v", err)
		}
	}
}

// An application that does not read costs its own connection, when there is no memory for what it does not take, and no other.
func TestAnApplicationThatDoesNotReadIsCut(t *testing.T) {
	b := newBedWith(t, budget.Limits{Buffers: 2 << 20}, func(*Config) {})
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
	other, _, err := b.dial(t)
	if err != nil {
		t.Fatal(err)
	}
	deaf, err := b.server.Listen(t.Context(), "tcp", "0.0.0.0:8081")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	conn, err := b.client.Dial(ctx, "tcp", netip.MustParseAddrPort(serverIP+":8081"), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	buf := make([]byte, 64<<10)
	for err == nil {
		_, err = conn.Write(buf)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("not cut: %v", err)
	}
	b.until(t, "it is counted", func() bool { return b.count(t, "istio_ztunnel_workload_shed_total", "memory") >= 1 })
	b.log.Wait(t, `reason="memory"`)
	if _, err := other.Write([]byte("still there")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(other, make([]byte, len("still there"))); err != nil {
		t.Errorf("another connection suffers: %v", err)
	}
	other.Close()
	b.until(t, "nothing is held", func() bool {
		return b.count(t, "istio_ztunnel_workload_memory") == budget.ConnectionCost*b.count(t, "istio_ztunnel_workload_connections")
	})
}
