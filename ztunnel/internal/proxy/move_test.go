package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/podtest"
)

// successor adapts a function to Successor.
type successor func(body []byte, fds []int) error

func (f successor) Offer(body []byte, fds []int) error { return f(body, fds) }

func echoes(conn net.Conn) error {
	if _, err := conn.Write([]byte("still there?")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, len("still there?")))
	return err
}

// received are the sockets as they come out of a message.
func received(t *testing.T, fds []int) []*os.File {
	t.Helper()
	var files []*os.File
	for _, fd := range fds {
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, os.NewFile(uintptr(own), "socket"))
	}
	return files
}

// TestARefusedHandoverKeepsServing: whoever is told no goes on with every connection.
func TestARefusedHandoverKeepsServing(t *testing.T) {
	b := newBed(t)
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
	conn, _, err := b.dial(t)
	if err != nil {
		t.Fatal(err)
	}
	offers := 0
	for _, p := range b.proxies {
		b.asleep(t, conn)
		moved := p.HandOver(t.Context(), successor(func([]byte, []int) error {
			offers++
			return errors.New("no")
		}))
		if moved.Connections != 0 || moved.Tunnels != 0 || moved.Stayed != 1 {
			t.Errorf("moved %+v", moved)
		}
		if err := echoes(conn); err != nil {
			t.Fatal(err)
		}
	}
	if tried := offers > 0; tried != (transport != hbone.Standard) {
		t.Errorf("%d offers over %v", offers, transport)
	}
}

// TestForgedParcelsAreRefused: what is said of a connection must be what its sockets and its peer's certificate say.
func TestForgedParcelsAreRefused(t *testing.T) {
	if transport == hbone.Standard {
		return // no tunnel is offered
	}
	b := newBed(t)
	podtest.Greet(t, b.server, "0.0.0.0:"+appPort)
	conn, _, err := b.dial(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name       string
		from, into int // proxies: 0 is the client's
		forge      func(*parcel, []*os.File) []*os.File
		want       string
	}{
		{"into another pod", 0, 1, nil, "another network namespace"},
		{"another source", 0, 0, func(p *parcel, f []*os.File) []*os.File {
			p.conns[0].src = netip.MustParseAddrPort("10.9.9.9:1")
			return f
		}, "whose socket is from"},
		{"another identity", 1, 1, func(p *parcel, f []*os.File) []*os.File {
			p.conns[0].sourceID = "spiffe://cluster.local/ns/shop/sa/somebody"
			return f
		}, "somebody else"},
		{"another direction", 1, 1, func(p *parcel, f []*os.File) []*os.File {
			p.conns[0].outbound = true
			return f
		}, "another kind"},
		{"a socket too few", 0, 0, func(_ *parcel, f []*os.File) []*os.File {
			f[1].Close()
			return f[:1]
		}, "1 sockets, want 2"},
		{"a file for a socket", 0, 0, func(_ *parcel, f []*os.File) []*os.File {
			f[1].Close()
			file, err := os.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			f[1] = file
			return f
		}, "adopt a socket"},
		{"a pod that has been shut", 0, 0, nil, errDrained.Error()},
	} {
		offered := false
		b.proxies[tc.from].HandOver(t.Context(), successor(func(body []byte, fds []int) error {
			if offered {
				return errors.New("no")
			}
			offered = true
			opened, err := OpenParcel(body)
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
				return err
			}
			files := received(t, fds)
			if tc.forge != nil {
				files = tc.forge(opened.p, files)
			}
			adoption, err := b.proxies[tc.into].Adopt(t.Context(), opened, files)
			if err == nil {
				adoption.Drop()
				err = errors.New("it was adopted")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: %v", tc.name, err)
			}
			return err
		}))
		if !offered {
			t.Errorf("%s: nothing was offered", tc.name)
		}
		if err := echoes(conn); err != nil {
			t.Fatalf("%s: the connection is lost: %v", tc.name, err)
		}
	}
}
