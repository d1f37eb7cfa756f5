package hbone

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

var update = flag.Bool("update", false, "record the states of this version anew")

const (
	earlier = "said before the move, "
	later   = "and after it"
)

// recordings are states of real connections as a build of a version has written them, and what the peer sent to their sockets from there
// on. Those of a version that has been released do not change any more: it says exactly what is there.
func recordings(t testing.TB, version uint64, side string) (state, wire string) {
	t.Helper()
	base := filepath.Join("testdata", "states", fmt.Sprintf("v%d-%s", version, side))
	return base + ".state", base + ".wire"
}

func sides() []string { return []string{"client", "server"} }

// TestStatesOfEachVersionGoOn: this build reads what the builds before have written, and goes on with it; what it writes itself is byte
// for byte what they read. Whoever changes the form raises the version, and records states of that one beside the older ones.
func TestStatesOfEachVersionGoOn(t *testing.T) {
	if *update {
		for _, side := range sides() {
			recordState(t, side)
		}
	}
	for version := uint64(1); version <= stateVersion; version++ {
		for _, side := range sides() {
			t.Run(fmt.Sprintf("v%d of a %s", version, side), func(t *testing.T) {
				goOn(t, version, side)
			})
		}
	}
}

func goOn(t *testing.T, version uint64, side string) {
	t.Helper()
	stateFile, wireFile := recordings(t, version, side)
	encoded, err := os.ReadFile(stateFile)
	if err != nil {
		t.Fatal(err)
	}
	wire, err := os.ReadFile(wireFile)
	if err != nil {
		t.Fatal(err)
	}
	state, err := ParseState(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if again := state.Encode(); version == stateVersion && !bytes.Equal(again, encoded) {
		t.Errorf("%d bytes become %d others under the same version", len(encoded), len(again))
	}
	near, far := tcp.Pair(t)
	go func() {
		_, _ = far.Write(wire)
		far.CloseWrite()
		_, _ = io.Copy(io.Discard, far)
	}()
	secured, err := ResumeTLS(near, state)
	if err != nil {
		t.Fatal(err)
	}
	resumed, err := Resume(secured, state, nil)
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan string, 1)
	hear := func(s *Stream) {
		all, err := io.ReadAll(s)
		if err != nil {
			t.Error(err)
		}
		heard <- string(all)
	}
	if streams := resumed.Streams(); len(streams) != 1 || resumed.Live().c.client != (side == "client") {
		t.Fatalf("%d streams", len(streams))
	}
	if side == "client" {
		stream := resumed.Streams()[0]
		cc := resumed.Start()
		hear(stream)
		cc.Close()
	} else if err := resumed.Serve(t.Context(), handlerFunc(echo), ServerConfig{}, func(_ context.Context, s *Stream, done func()) {
		hear(s)
		s.Close()
		done()
	}); err != nil {
		t.Error(err)
	}
	if got := <-heard; got != earlier+later {
		t.Errorf("heard %q", got)
	}
}

// recordState makes a connection, of which one side is exported with something unread.
func recordState(t *testing.T, side string) {
	t.Helper()
	a, b := secured(t, carriage{client: Records, server: Records})
	proceed, accepted, lives := make(chan struct{}), make(chan *Stream, 1), make(chan Live, 1)
	say := func(s *Stream) {
		io.WriteString(s, earlier)
		<-proceed
		io.WriteString(s, later)
		s.CloseWrite()
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = ServeConn(context.Background(), b, handlerFunc(func(ctx context.Context, _ *Request, w ResponseWriter) {
			s, err := w.Accept(Header{{"baggage", "service.name=recorded"}})
			if err != nil {
				return
			}
			accepted <- s
			if side == "client" {
				say(s)
			}
			<-ctx.Done()
		}), ServerConfig{Started: func(l Live) { lives <- l }})
	}()
	cc, err := NewClientConn(a, ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	stream, _, err := cc.Connect(deadline(t), &Request{Authority: "10.0.0.1:80"})
	if err != nil {
		t.Fatal(err)
	}
	hearing, live, socket, other := stream, cc.Live(), a.NetConn(), b.NetConn()
	if side == "server" {
		hearing, live, socket, other = <-accepted, <-lives, b.NetConn(), a.NetConn()
	}
	said := make(chan struct{})
	go func() {
		defer close(said)
		if side == "server" {
			say(stream)
		}
	}()
	wait.Until(t, time.Minute, "something waits to be read", func() bool {
		hearing.rmu.Lock()
		defer hearing.rmu.Unlock()
		return len(hearing.queue.Bytes()) == len(earlier)
	}, nil)
	if err := live.Settle(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if err := live.Stop(deadline(t)); err != nil {
		t.Fatal(err)
	}
	state, err := live.Export()
	if err != nil {
		t.Fatal(err)
	}
	socket = duplicate(t, socket)
	stateFile, wireFile := recordings(t, stateVersion, side)
	write := func(name string, content []byte) {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(stateFile, state.Encode())
	close(proceed)
	var wire []byte
	socket.SetReadDeadline(time.Now().Add(time.Minute))
	for buf := make([]byte, 4096); !ends(t, stateFile, wire); {
		n, err := socket.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		wire = append(wire, buf[:n]...)
	}
	write(wireFile, wire)
	live.Leave()
	socket.Close()
	other.Close()
	cc.Close()
	<-served
	<-said
}

// ends tells whether wire holds all that the stream of a state will hear.
func ends(t *testing.T, stateFile string, wire []byte) bool {
	t.Helper()
	encoded, err := os.ReadFile(stateFile)
	if err != nil {
		t.Fatal(err)
	}
	state, err := ParseState(encoded)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		_, _ = far.Write(wire)
		far.Close()
	}()
	tls, err := ResumeTLS(near, state)
	if err != nil {
		t.Fatal(err)
	}
	plain, _ := io.ReadAll(tls) // what is missing ends it
	at := bytes.Index(plain, []byte(later))
	return at >= 0 && len(plain) >= at+len(later)+9 // the frame with END_STREAM
}
