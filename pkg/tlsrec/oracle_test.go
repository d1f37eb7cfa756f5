package tlsrec

import (
	"crypto/tls"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
)

// Both directions at once, over sockets and over connections that deliver in pieces, with key updates in between: what arrives is
// what was sent, and the end is seen as an end.
func TestAgainstCryptoTLS(t *testing.T) {
	const size = 3 << 20
	for _, roles := range []struct {
		name           string
		client, server handshaker
	}{
		{"ours to crypto/tls", ownClient, standardServer},
		{"crypto/tls to ours", standardClient, ownServer},
		{"ours to ours", ownClient, ownServer},
	} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("%s %d", roles.name, seed), func(t *testing.T) {
				a, b := net.Conn(nil), net.Conn(nil)
				a, b = tcp.Pair(t)
				if seed%2 == 1 {
					a, b = newChoppy(a, seed), newChoppy(b, seed+100)
				}
				client, server := shaken(t, a, b, roles.client, roles.server)
				exchange(t, client, server, seed, size)
			})
		}
	}
}

func exchange(t *testing.T, client, server Secured, seed uint64, size int) {
	t.Helper()
	sent := make(chan error, 2)
	// crypto/tls loses count when it is asked for an update after it has ended its own direction: see TestUpdateOnRequest for those.
	_, one := client.(*Conn)
	_, other := server.(*Conn)
	for i, from := range []Secured{client, server} {
		var update func(*mrand.Rand) error
		if own, ok := from.(*Conn); ok {
			update = func(r *mrand.Rand) error {
				if r.IntN(8) > 0 {
					return nil
				}
				return own.UpdateKeys(one && other && r.IntN(2) == 0)
			}
		}
		go func() { sent <- send(from, seed+uint64(i), size, update) }()
	}
	received := make(chan error, 2)
	for i, to := range []Secured{server, client} {
		go func() {
			check := newSequence(seed + uint64(i))
			err := drain(to, check, mrand.New(mrand.NewPCG(seed, 3)))
			if err == nil && (check.bad || check.n != size) {
				err = fmt.Errorf("%d of %d bytes, changed: %v", check.n, size, check.bad)
			}
			received <- err
		}()
	}
	for range 2 {
		if err := <-sent; err != nil {
			t.Error("send:", err)
		}
		if err := <-received; err != nil {
			t.Error("receive:", err)
		}
	}
	client.Close()
	server.Close()
}

// A peer that does not speak TLS 1.3 is served by crypto/tls itself, without a byte lost.
func TestOlderTLSIsLeftToCryptoTLS(t *testing.T) {
	a, b := tcp.Pair(t)
	cc, sc := configs(t)
	cc.MaxVersion = tls.VersionTLS12
	client, server := shakenWith(t, newChoppy(a, 1), b, standardClient, Server, cc, sc)
	if _, ok := server.(*tls.Conn); !ok {
		t.Fatalf("the server's end is a %T", server)
	}
	exchange(t, client, server, 1, 1<<20)
	a, b = tcp.Pair(t)
	client, server = shakenWith(t, a, newChoppy(b, 1), Client, standardServer, cc, sc)
	if _, ok := client.(*tls.Conn); !ok {
		t.Fatalf("the client's end is a %T", client)
	}
	exchange(t, client, server, 1, 1<<20)
}

// What a server sends before it has the client's Finished, and what a client sends right behind it, is not lost.
func TestDataRightBehindTheHandshake(t *testing.T) {
	for range 20 {
		a, b := tcp.Pair(t)
		cc, sc := configs(t)
		done := make(chan error, 1)
		go func() {
			c := tls.Client(a, cc)
			_, err := c.Write([]byte("early bird"))
			done <- err
		}()
		server, err := ownServer(deadline(t), b, sc)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		p, err := server.(*Conn).Next()
		if err != nil || string(p) != "early bird" {
			t.Fatalf("%q, %v", p, err)
		}
		server.Close()
	}
}

// A configuration that differs by client is asked, and session tickets stay off.
func TestConfigForClient(t *testing.T) {
	a, b := tcp.Pair(t)
	cc, sc := configs(t)
	outer := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return sc, nil }}
	client, server := shakenWith(t, a, b, ownClient, ownServer, cc, outer)
	if state := server.ConnectionState(); state.NegotiatedProtocol != "h2" || len(state.PeerCertificates) != 1 || state.Version != tls.VersionTLS13 {
		t.Errorf("state %+v", state)
	}
	if sc.KeyLogWriter != nil || sc.SessionTicketsDisabled {
		t.Error("the caller's configuration was changed")
	}
	exchange(t, client, server, 5, 100_000)
}

func TestFailedHandshake(t *testing.T) {
	a, b := tcp.Pair(t)
	cc, sc := configs(t)
	cc.Certificates = nil
	go func() {
		if c, err := Client(deadline(t), a, cc); err == nil {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("the client may go on without a certificate")
			} else if want := "TLS: the peer ended the connection: certificate_required"; err.Error() != want {
				t.Errorf("the client sees %q, want %q", err, want)
			}
		}
		a.Close()
	}()
	if _, err := Server(deadline(t), b, sc); err == nil {
		t.Error("a client without a certificate was taken")
	}
	_, _ = b.Read(make([]byte, 1)) // until the client has seen the alert
}

// A peer that is asked for new keys answers, and is answered before the next data.
func TestUpdateOnRequest(t *testing.T) {
	a, b := tcp.Pair(t)
	client, server := shaken(t, a, b, Client, standardServer)
	own := client.(*Conn)
	buf := make([]byte, 5)
	for i := range 10 {
		if err := own.UpdateKeys(true); err != nil {
			t.Fatal(err)
		}
		if _, err := own.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(server, buf); err != nil {
			t.Fatal(i, err)
		}
		if _, err := server.Write([]byte("world")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(own, buf); err != nil || string(buf) != "world" || own.rx.updates != uint64(i+1) {
			t.Fatalf("round %d: %q, %v, %d updates", i, buf, err, own.rx.updates)
		}
	}
	client.Close()
	server.Close()

	one, two := ours(t)
	if err := one.UpdateKeys(true); err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct{ from, to *Conn }{{one, two}, {two, one}, {one, two}, {two, one}} {
		if _, err := step.from.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(step.to, buf); err != nil {
			t.Fatal(i, err)
		}
	}
	if one.rx.updates != 1 || two.rx.updates != 1 {
		t.Errorf("%d and %d updates, want one each", one.rx.updates, two.rx.updates)
	}
	one.Close()
	two.Close()
}

// Long before a key has protected as many records as it may, it is changed.
func TestKeysChangeByThemselves(t *testing.T) {
	a, b := tcp.Pair(t)
	client, server := shaken(t, a, b, Client, standardServer)
	own := client.(*Conn)
	own.tx.limit = 8
	done := make(chan error, 1)
	go func() { done <- send(client, 7, 4<<20, nil) }()
	check := newSequence(7)
	if _, err := io.Copy(check, server); err != nil || check.bad || check.n != 4<<20 {
		t.Errorf("%d bytes, changed %v, %v", check.n, check.bad, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	client.Close()
	server.Close()
}
