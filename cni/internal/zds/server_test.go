package zds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pkg/api/zds"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

type bed struct {
	t         *testing.T
	server    *Server
	path      string
	connected atomic.Int32
	files     []*os.File // network namespaces of pods, open for as long as the server runs

	mu    sync.Mutex // guards taken
	taken map[string]string
}

func newBed(t *testing.T) *bed { return newBedWithin(t, 0) }

// newBedWithin makes a server that waits so long for an answer; 0 is the default.
func newBedWithin(t *testing.T, timeout time.Duration) *bed {
	t.Helper()
	b := &bed{t: t, path: filepath.Join(t.TempDir(), "run", "ztunnel.sock"), taken: map[string]string{}}
	server, err := Listen(b.path, Config{
		Log: slog.New(slog.DiscardHandler), Timeout: timeout, Connected: func(n int) { b.connected.Store(int32(n)) },
		Taken: func(uid string, err error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.taken[uid] = fmt.Sprint(err)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.server = server
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for _, file := range b.files {
			file.Close()
		}
	})
	return b
}

func (b *bed) pod(uid string) Pod {
	b.t.Helper()
	file, err := os.Open("/proc/self/ns/net")
	if err != nil {
		b.t.Fatal(err)
	}
	b.files = append(b.files, file)
	return Pod{UID: uid, Name: "web-" + uid, Namespace: "shop", ServiceAccount: "web", Netns: file}
}

// proxy is a ztunnel, written from the description of the protocol.
type proxy struct {
	t    *testing.T
	conn *net.UnixConn
	seen chan string
}

// connect introduces a proxy that answers each request with what answer returns; nil answers nothing.
func (b *bed) connect(answer func(*zds.WorkloadRequest) []byte) *proxy {
	b.t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: b.path, Net: "unixpacket"})
	if err != nil {
		b.t.Fatal(err)
	}
	p := &proxy{t: b.t, conn: conn, seen: make(chan string, 64)}
	b.t.Cleanup(func() { conn.Close() })
	if _, err := conn.Write([]byte{8, 1}); err != nil {
		b.t.Fatal(err)
	}
	go p.serve(answer)
	return p
}

func (p *proxy) serve(answer func(*zds.WorkloadRequest) []byte) {
	defer close(p.seen)
	for {
		data, control := make([]byte, 1024), make([]byte, 256)
		n, oob, _, _, err := p.conn.ReadMsgUnix(data, control)
		if err != nil {
			return
		}
		files := 0
		messages, _ := syscall.ParseSocketControlMessage(control[:oob])
		for i := range messages {
			fds, _ := syscall.ParseUnixRights(&messages[i])
			for _, fd := range fds {
				files++
				syscall.Close(fd)
			}
		}
		var request zds.WorkloadRequest
		if err := proto.Unmarshal(data[:n], &request); err != nil {
			p.seen <- err.Error()
			return
		}
		p.seen <- describe(&request, files)
		if reply := answer(&request); reply != nil {
			if _, err := p.conn.Write(reply); err != nil {
				return
			}
		}
	}
}

func describe(r *zds.WorkloadRequest, files int) string {
	switch p := r.GetPayload().(type) {
	case *zds.WorkloadRequest_Add:
		i := p.Add.GetWorkloadInfo()
		return fmt.Sprintf("add %s %s/%s/%s files=%d", p.Add.GetUid(), i.GetNamespace(), i.GetName(), i.GetServiceAccount(), files)
	case *zds.WorkloadRequest_Del:
		return fmt.Sprintf("del %s files=%d", p.Del.GetUid(), files)
	case *zds.WorkloadRequest_SnapshotSent:
		return fmt.Sprintf("sent files=%d", files)
	}
	return "?"
}

func ok(*zds.WorkloadRequest) []byte { return ack("") }

func ack(reason string) []byte {
	out, _ := proto.Marshal(&zds.WorkloadResponse{Payload: &zds.WorkloadResponse_Ack{Ack: &zds.Ack{Error: reason}}})
	return out
}

func (p *proxy) want(lines ...string) {
	p.t.Helper()
	for _, want := range lines {
		select {
		case got := <-p.seen:
			if got != want {
				p.t.Errorf("the proxy saw %q, want %q", got, want)
			}
		case <-time.After(30 * time.Second):
			p.t.Fatalf("the proxy never saw %q", want)
		}
	}
}

func (b *bed) waitConnected(n int32) {
	b.t.Helper()
	wait.Until(b.t, 30*time.Second, fmt.Sprintf("%d proxies are connected", n), func() bool { return b.connected.Load() == n },
		func() string { return fmt.Sprintf("%d are", b.connected.Load()) })
}

func TestSnapshotThenChanges(t *testing.T) {
	b := newBed(t)
	if err := b.server.Add(b.pod("1")); !errors.Is(err, ErrNoProxy) {
		t.Errorf("without a proxy: %v", err)
	}
	p := b.connect(ok)
	p.want("add 1 shop/web-1/web files=1", "sent files=0")
	b.waitConnected(1)
	if err := b.server.Add(b.pod("2")); err != nil {
		t.Error(err)
	}
	if err := b.server.Del("1"); err != nil {
		t.Error(err)
	}
	if err := b.server.Del("unknown"); err != nil {
		t.Error(err)
	}
	p.want("add 2 shop/web-2/web files=1", "del 1 files=0")
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken["1"] != "<nil>" || len(b.taken) != 1 {
		t.Errorf("reported %v", b.taken)
	}
}

func TestTheNewestProxyGetsPodsAndAllAreToldOfTheirEnd(t *testing.T) {
	b := newBed(t)
	old := b.connect(ok)
	old.want("sent files=0")
	b.waitConnected(1)
	if err := b.server.Add(b.pod("1")); err != nil {
		t.Fatal(err)
	}
	old.want("add 1 shop/web-1/web files=1")
	next := b.connect(ok)
	next.want("add 1 shop/web-1/web files=1", "sent files=0")
	b.waitConnected(2)
	if err := b.server.Add(b.pod("2")); err != nil {
		t.Fatal(err)
	}
	next.want("add 2 shop/web-2/web files=1")
	if err := b.server.Del("1"); err != nil {
		t.Fatal(err)
	}
	next.want("del 1 files=0")
	old.want("del 1 files=0")
	next.conn.Close()
	if err := b.server.Add(b.pod("3")); err != nil {
		t.Errorf("with the old proxy left: %v", err)
	}
	old.want("add 3 shop/web-3/web files=1")
}

func TestRefusalsKeepTheConnection(t *testing.T) {
	b := newBed(t)
	if err := b.server.Add(b.pod("1")); !errors.Is(err, ErrNoProxy) {
		t.Fatal(err)
	}
	p := b.connect(func(r *zds.WorkloadRequest) []byte {
		if r.GetAdd().GetUid() != "" {
			return ack("no such luck")
		}
		return ack("")
	})
	p.want("add 1 shop/web-1/web files=1", "sent files=0")
	b.waitConnected(1)
	var refused *RefusedError
	if err := b.server.Add(b.pod("2")); !errors.As(err, &refused) || refused.Reason != "no such luck" {
		t.Errorf("%v", err)
	}
	if err := b.server.Del("2"); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken["1"] != "ztunnel: no such luck" {
		t.Errorf("reported %v", b.taken)
	}
}

func TestProxiesThatBreakTheProtocolAreDropped(t *testing.T) {
	b := newBed(t)
	for name, first := range map[string][]byte{"unknown version": {8, 9}, "garbage": {0xff, 0xff}} {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: b.path, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := conn.Write(first); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 16)); err == nil || n > 0 {
			t.Errorf("%s: got %d bytes, %v", name, n, err)
		}
		conn.Close()
	}
	silent := b.connect(func(r *zds.WorkloadRequest) []byte {
		if r.GetSnapshotSent() != nil {
			return ack("")
		}
		return nil
	})
	silent.want("sent files=0")
	b.waitConnected(1)
	if err := b.server.Add(b.pod("1")); !errors.Is(err, ErrNoProxy) {
		t.Errorf("a proxy that never answers: %v", err)
	}
	talking := b.connect(ok)
	talking.want("add 1 shop/web-1/web files=1", "sent files=0")
	if _, err := talking.conn.Write(ack("")); err != nil {
		t.Fatal(err)
	}
	b.waitConnected(0)
}

func TestListenReplacesASocketOfBefore(t *testing.T) {
	b := newBed(t)
	info, err := os.Stat(b.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	next, err := Listen(b.path, b.server.cfg)
	if err != nil {
		t.Fatal(err)
	}
	next.listener.Close()
}

// TestALateAnswerIsNotTheNextRequests lets the acknowledgement of a DEL come while an ADD waits for its own.
func TestALateAnswerIsNotTheNextRequests(t *testing.T) {
	b := newBedWithin(t, 5*time.Second)
	late := make(chan struct{})
	release := sync.OnceFunc(func() { close(late) })
	t.Cleanup(release)
	p := b.connect(func(r *zds.WorkloadRequest) []byte {
		switch {
		case r.GetDel() != nil:
			<-late
		case r.GetAdd().GetUid() == "2":
			return ack("no room")
		}
		return ack("")
	})
	p.want("sent files=0")
	b.waitConnected(1)
	if err := b.server.Add(b.pod("1")); err != nil {
		t.Fatal(err)
	}
	p.want("add 1 shop/web-1/web files=1")
	deleted, added, second := make(chan error, 1), make(chan error, 1), b.pod("2")
	go func() { deleted <- b.server.Del("1") }()
	p.want("del 1 files=0")
	go func() { added <- b.server.Add(second) }()
	if err := <-deleted; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a DEL that is not acknowledged: %v", err)
	}
	release()
	if err := <-added; !errors.Is(err, ErrNoProxy) {
		t.Errorf("an ADD that the proxy has not taken: %v", err)
	}
	next := b.connect(ok)
	next.want("add 2 shop/web-2/web files=1", "sent files=0")
}

// TestALostAnswerEndsTheConnectionAtOnce asks while it holds the connection, as one that waits for it would get it.
func TestALostAnswerEndsTheConnectionAtOnce(t *testing.T) {
	request := &zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Del{Del: &zds.DelWorkload{Uid: "1"}}}
	for name, tt := range map[string]struct {
		answer []byte // nil for none
		sound  bool
	}{
		"acknowledged":       {ack(""), true},
		"refused":            {ack("no"), true},
		"no answer":          {nil, false},
		"not an answer":      {[]byte{0xff}, false},
		"not one that helps": {[]byte{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, peer := pair(t)
			if tt.sound {
				c.timeout = time.Minute
			}
			if tt.answer != nil {
				if _, err := peer.Write(tt.answer); err != nil {
					t.Fatal(err)
				}
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			err := c.requestLocked(request, nil)
			if tt.sound {
				if _, err := peer.Write(ack("")); err != nil {
					t.Fatal(err)
				}
				if err := c.requestLocked(request, nil); err != nil {
					t.Errorf("a sound connection: %v", err)
				}
				return
			}
			if err == nil {
				t.Error("the request succeeded")
			}
			_, _ = peer.Write(ack("")) // too late
			if err := c.requestLocked(request, nil); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the next request: %v", err)
			}
		})
	}
}

// pair returns a connection and what the proxy has of it.
func pair(t *testing.T) (*conn, *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		end, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { end.Close() })
		ends[i] = end.(*net.UnixConn)
	}
	return &conn{unix: ends[0], timeout: 50 * time.Millisecond}, ends[1]
}

// FuzzParseAck checks that only an acknowledgement without an error is taken for consent, that refusals keep their reason,
// and that whatever is neither leaves the connection lost.
func FuzzParseAck(f *testing.F) {
	f.Add(ack(""), "")
	f.Add(ack("no"), "failure to start proxy : no")
	f.Add([]byte{10, 0, 0xff}, "\xff")
	f.Add([]byte{}, "\x00")
	f.Add([]byte{10, 2, 10, 0, 10, 4, 10, 2, 'n', 'o'}, "é") // the later one counts
	f.Fuzz(func(t *testing.T, data []byte, reason string) {
		var refused *RefusedError
		if utf8.ValidString(reason) {
			err := parseAck(ack(reason))
			if isRefused := errors.As(err, &refused); isRefused != (reason != "") || (err == nil) != (reason == "") || isRefused && refused.Reason != reason {
				t.Errorf("an acknowledgement with the error %q: %v", reason, err)
			}
		}
		err := parseAck(data)
		var response zds.WorkloadResponse
		broken := proto.Unmarshal(data, &response) != nil
		given := response.GetAck()
		switch {
		case err == nil:
			if broken || given == nil || given.GetError() != "" {
				t.Errorf("%x is taken for consent", data)
			}
		case errors.As(err, &refused):
			if broken || refused.Reason == "" || given.GetError() != refused.Reason {
				t.Errorf("%x is taken for the refusal %q", data, refused.Reason)
			}
			var again *RefusedError
			if !errors.As(parseAck(ack(refused.Reason)), &again) || *again != *refused {
				t.Errorf("the refusal %q does not survive", refused.Reason)
			}
		case !broken && given != nil:
			t.Errorf("%x is an acknowledgement: %v", data, err)
		}
	})
}
