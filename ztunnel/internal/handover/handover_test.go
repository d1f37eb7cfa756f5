package handover

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

var update = flag.Bool("update", false, "record the messages of this version anew")

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

// shelf is a Taker that remembers.
type shelf struct {
	mu            sync.Mutex // guards the rest
	bodies        []string
	gone, dropped int
	files         int
	refuse        error
	asked, hold   chan struct{} // if set, Take says by one that it waits for the other
}

type item struct {
	s     *shelf
	files []*os.File
}

func (s *shelf) Take(_ context.Context, body []byte, files []*os.File) (Taken, error) {
	if s.hold != nil {
		close(s.asked)
		<-s.hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		netx.CloseFiles(files)
		return nil, s.refuse
	}
	s.bodies = append(s.bodies, string(body))
	s.files += len(files)
	return item{s, files}, nil
}

func (i item) Go() {
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	i.s.gone++
	netx.CloseFiles(i.files)
}

func (i item) Drop() {
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	i.s.dropped++
	netx.CloseFiles(i.files)
}

func (s *shelf) counts() (gone, dropped, files int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone, s.dropped, s.files
}

// taken are the bodies so far.
func (s *shelf) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.bodies...)
}

func (s *shelf) refusing(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = err
}

func here() Self {
	return Self{Node: "node-a", Cluster: "Kubernetes", TrustDomain: "cluster.local", Build: "test"}
}

func open(t *testing.T, dir string, self Self, taker Taker) *Receiver {
	t.Helper()
	r, err := Listen(dir, self, taker, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func meet(t *testing.T, dir string, self Self) *Sender {
	t.Helper()
	s, err := Dial(t.Context(), dir, self)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// pipe returns a descriptor to send.
func pipe(t *testing.T) int {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0]
}

func TestOffersArriveWhole(t *testing.T) {
	dir, s := filepath.Join(t.TempDir(), "handover"), &shelf{}
	open(t, dir, here(), s)
	to := meet(t, dir, here())
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	fds := make([]int, MaxFiles)
	for n := range fds {
		fds[n] = pipe(t)
	}
	for _, offer := range []struct {
		body []byte
		fds  []int
	}{{[]byte("small"), fds[:2]}, {large, fds}, {nil, nil}} {
		if err := to.Offer(offer.body, offer.fds); err != nil {
			t.Fatal(err)
		}
	}
	wait.Until(t, 20*time.Second, "three offers go on", func() bool { gone, _, _ := s.counts(); return gone == 3 }, nil)
	_, _, files := s.counts()
	if bodies := s.taken(); bodies[0] != "small" || bodies[1] != string(large) || files != 2+MaxFiles {
		t.Errorf("%d bytes and %d files came", len(bodies[1]), files)
	}
	s.refusing(errors.New("no such pod"))
	if err := to.Offer([]byte("x"), fds[:1]); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "no such pod") {
		t.Errorf("refused: %v", err)
	}
	s.refusing(nil)
	if err := to.Offer([]byte("y"), fds[:1]); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
	if err := to.Offer(nil, make([]int, MaxFiles+1)); err == nil {
		t.Error("more sockets than fit were offered")
	}
}

// TestVersionsMeetInTheMiddle: an old instance with a newer successor and the other way round.
func TestVersionsMeetInTheMiddle(t *testing.T) {
	for _, tc := range []struct {
		name                       string
		oldLeast, oldMost          uint64
		newLeast, newMost, version uint64 // version 0: they have none in common
	}{
		{"the same", 1, 1, 1, 1, 1},
		{"upgrade to one that knows the old form", 1, 1, 1, 2, 1},
		{"upgrade to one that does not", 1, 1, 2, 2, 0},
		{"rollback to one that knows the older form only", 1, 2, 1, 1, 1},
		{"rollback from one that does not write it", 2, 2, 1, 1, 0},
		{"both know several", 1, 3, 2, 4, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "handover")
			before, after := here(), here()
			before.Least, before.Most, after.Least, after.Most = tc.oldLeast, tc.oldMost, tc.newLeast, tc.newMost
			open(t, dir, after, &shelf{})
			s, err := Dial(t.Context(), dir, before)
			if tc.version == 0 {
				if err == nil {
					s.Close()
					t.Fatal("they agreed")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if s.Version() != tc.version {
				t.Errorf("version %d, want %d", s.Version(), tc.version)
			}
		})
	}
}

func TestStrangersAreNotBelieved(t *testing.T) {
	for what, change := range map[string]func(*Self){
		"node": func(s *Self) { s.Node = "node-b" }, "cluster": func(s *Self) { s.Cluster = "other" },
		"trust domain": func(s *Self) { s.TrustDomain = "other" },
	} {
		dir := filepath.Join(t.TempDir(), "handover")
		open(t, dir, here(), &shelf{})
		other := here()
		change(&other)
		if s, err := Dial(t.Context(), dir, other); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("another %s: %v", what, err)
			if err == nil {
				s.Close()
			}
		}
	}
}

func TestOpenDirectoriesAreRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "handover")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if r, err := Listen(dir, here(), &shelf{}, slog.New(slog.DiscardHandler)); err == nil {
		r.Close()
		t.Error("a directory that others may enter was used")
	}
	if s, err := Dial(t.Context(), dir, here()); err == nil || errors.Is(err, ErrNoSuccessor) {
		t.Errorf("dialled through it: %v, %v", s, err)
	}
	if _, err := Dial(t.Context(), filepath.Join(dir, "none"), here()); !errors.Is(err, ErrNoSuccessor) {
		t.Errorf("without a directory: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if r, err := Listen(link, here(), &shelf{}, slog.New(slog.DiscardHandler)); err == nil {
		r.Close()
		t.Error("a link was followed")
	}
}

// TestTheNewestIsTheSuccessor: the door changes hands in one step, and the one who has left takes nobody else's away.
func TestTheNewestIsTheSuccessor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "handover")
	first, second := &shelf{}, &shelf{}
	old := open(t, dir, here(), first)
	next := open(t, dir, here(), second)
	old.Close()
	if err := meet(t, dir, here()).Offer([]byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	if len(first.taken()) != 0 || len(second.taken()) != 1 {
		t.Errorf("taken by %d and %d", len(first.taken()), len(second.taken()))
	}
	next.Close()
	if _, err := Dial(t.Context(), dir, here()); !errors.Is(err, ErrNoSuccessor) {
		t.Errorf("after all have left: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestASuccessorThatHangsTakesNothing: the old instance gives up waiting and goes on; then it is too late for the successor.
func TestASuccessorThatHangsTakesNothing(t *testing.T) {
	dir, s := filepath.Join(t.TempDir(), "handover"), &shelf{asked: make(chan struct{}), hold: make(chan struct{})}
	open(t, dir, here(), s)
	to, fds, offered := meet(t, dir, here()), []int{pipe(t)}, make(chan error, 1)
	go func() { offered <- to.Offer([]byte("x"), fds) }()
	<-s.asked
	to.channel.conn.SetReadDeadline(time.Unix(1, 0)) // it has waited long enough
	err := <-offered
	if err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("offered to one that hangs: %v", err)
	}
	if err := to.Offer([]byte("x"), nil); err == nil {
		t.Error("offered again after that")
	}
	close(s.hold)
	wait.Until(t, 20*time.Second, "it is dropped", func() bool { gone, dropped, _ := s.counts(); return gone == 0 && dropped == 1 }, nil)
}

// fakeSuccessor opens the door, and runs serve for the first who comes, behind the greeting.
func fakeSuccessor(t *testing.T, dir string, serve func(channel)) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: doorOf(dir), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer conn.Close()
		c := channel{conn}
		soon := time.Now().Add(20 * time.Second)
		if _, _, _, err := c.receive(soon); err != nil {
			return
		}
		boot, _ := bootID()
		if c.send(head{kind: kindHello}, here().withDefaults().encode(boot), nil, soon) == nil {
			serve(c)
		}
	}()
}

func TestASuccessorThatDiesTakesNothing(t *testing.T) {
	for what, serve := range map[string]func(channel){
		"at once":         func(channel) {},
		"amid the offer":  func(c channel) { _, _ = c.conn.Read(make([]byte, 20)) },
		"after the offer": func(c channel) { _, _, files, _ := c.receive(time.Now().Add(20 * time.Second)); netx.CloseFiles(files) },
		"amid its answer": func(c channel) {
			_, _, files, _ := c.receive(time.Now().Add(20 * time.Second))
			netx.CloseFiles(files)
			_, _ = c.conn.Write([]byte{3, 0})
		},
		"with another answer": func(c channel) {
			_, _, files, _ := c.receive(time.Now().Add(20 * time.Second))
			netx.CloseFiles(files)
			_ = c.send(head{kind: kindTaken, id: 99}, nil, nil, time.Now().Add(time.Second))
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "handover")
			fakeSuccessor(t, dir, serve)
			to := meet(t, dir, here())
			if err := to.Offer(bytes.Repeat([]byte("x"), 1<<20), []int{pipe(t)}); err == nil || errors.Is(err, ErrRefused) {
				t.Errorf("it took the offer: %v", err)
			}
		})
	}
}

// TestAnOldInstanceThatDiesIsForgotten: what it offered by halves, or by no rules, is not taken, and the next one is served.
func TestAnOldInstanceThatDiesIsForgotten(t *testing.T) {
	dir, s := filepath.Join(t.TempDir(), "handover"), &shelf{}
	open(t, dir, here(), s)
	fd := pipe(t)
	soon := func() time.Time { return time.Now().Add(20 * time.Second) }
	long := head{kind: kindOffer, files: 1, body: 1 << 20, id: 1}.append(nil)
	for what, act := range map[string]func(channel) error{
		"amid the head":  func(c channel) error { _, err := c.conn.Write(long[:5]); return err },
		"amid the body":  func(c channel) error { _, _, err := c.conn.WriteMsgUnix(long, unix.UnixRights(fd), nil); return err },
		"a kind of none": func(c channel) error { _, err := c.conn.Write(bytes.Repeat([]byte{77}, headLen)); return err },
		"too much": func(c channel) error {
			_, err := c.conn.Write(head{kind: kindOffer, body: maxBody + 1}.append(nil))
			return err
		},
		"sockets unasked": func(c channel) error {
			_, _, err := c.conn.WriteMsgUnix(head{kind: kindOffer}.append(nil), unix.UnixRights(fd), nil)
			return err
		},
		"sockets withheld": func(c channel) error { _, err := c.conn.Write(head{kind: kindOffer, files: 3}.append(nil)); return err },
		"a second hello":   func(c channel) error { return c.send(head{kind: kindHello}, []byte("x"), nil, soon()) },
	} {
		to := meet(t, dir, here())
		if err := act(to.channel); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		_ = to.channel.conn.CloseWrite()
		if _, _, _, err := to.channel.receive(soon()); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%s: the successor answers: %v", what, err)
		}
	}
	if err := meet(t, dir, here()).Offer([]byte("x"), []int{fd}); err != nil {
		t.Error("after all of them:", err)
	}
	if n := len(s.taken()); n != 1 {
		t.Errorf("taken: %d", n)
	}
}

func TestNobodyIsServedWithoutAGreeting(t *testing.T) {
	dir, s := filepath.Join(t.TempDir(), "handover"), &shelf{}
	open(t, dir, here(), s)
	for what, first := range map[string][]byte{
		"an offer":       head{kind: kindOffer, id: 1}.append(nil),
		"another tongue": append(head{kind: kindHello, body: 4}.append(nil), "HTTP"...),
		"a long one":     head{kind: kindHello, body: maxHello + 1}.append(nil),
	} {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: doorOf(dir), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(first); err != nil {
			t.Fatal(err)
		}
		h, body, _, err := channel{conn}.receive(time.Now().Add(20 * time.Second))
		if err != nil || h.kind != kindRefused || len(body) == 0 {
			t.Errorf("%s: answered by %v, %v", what, h, err)
		}
		conn.Close()
	}
	if len(s.taken()) > 0 {
		t.Error("something was taken")
	}
}

// recorded is what each side sends, as a build of a version has written it: a greeting, an offer, and the two answers.
const recorded = "testdata/v%d-messages"

func messages(boot string) []byte {
	greeting := Self{Node: "node-a", Cluster: "Kubernetes", TrustDomain: "cluster.local", Build: "1.0", Least: 1, Most: MostVersion}.encode(boot)
	b := append(head{kind: kindHello, body: len(greeting)}.append(nil), greeting...)
	b = append(head{kind: kindOffer, files: 2, body: 5, id: 1}.append(b), "offer"...)
	b = head{kind: kindTaken, id: 1}.append(b)
	return append(head{kind: kindRefused, body: 2, id: 2}.append(b), "no"...)
}

// TestMessagesOfEachVersionAreRead: this build understands the messages of the builds before, byte for byte as they wrote them, and
// writes its own as it always has.
func TestMessagesOfEachVersionAreRead(t *testing.T) {
	const boot = "6c1c1a9e-8f62-4b3c-8a30-0d5b1c3d2f11"
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(fmt.Sprintf(recorded, MostVersion), messages(boot), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for version := uint64(1); version <= MostVersion; version++ {
		wire, err := os.ReadFile(fmt.Sprintf(recorded, version))
		if err != nil {
			t.Fatal(err)
		}
		if version == MostVersion && !bytes.Equal(wire, messages(boot)) {
			t.Errorf("v%d: other messages under the same version", version)
		}
		var kinds []kind
		for rest := wire; len(rest) > 0; {
			h, err := parseHead(rest)
			if err != nil {
				t.Fatalf("v%d: %v", version, err)
			}
			body := rest[headLen : headLen+h.body]
			if h.kind == kindHello {
				self := here()
				self.Least, self.Most = 1, MostVersion
				if agreed, err := self.meet(body, boot); err != nil || agreed != version {
					t.Errorf("v%d: they agree on %d, %v", version, agreed, err)
				}
			}
			kinds = append(kinds, h.kind)
			rest = rest[headLen+h.body:]
		}
		if !slices.Equal(kinds, []kind{kindHello, kindOffer, kindTaken, kindRefused}) {
			t.Errorf("v%d: %v", version, kinds)
		}
	}
}

// FuzzReceive: whatever comes, a channel returns a whole message or an error, and loses no descriptor.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{})
	if wire, err := os.ReadFile(fmt.Sprintf(recorded, MostVersion)); err != nil {
		f.Fatal(err)
	} else {
		f.Add(wire)
		f.Add(wire[headLen:]) // from the greeting's magic on
	}
	f.Add(head{kind: kindOffer, body: 3, id: 7}.append(nil))
	f.Add(append(head{kind: kindRefused, body: 3, id: 7}.append(nil), "no."...))
	f.Add(append(head{kind: kindHello, body: 2}.append(nil), binary.BigEndian.AppendUint16(nil, 1)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		ends := [2]*net.UnixConn{}
		for n, fd := range fds {
			file := os.NewFile(uintptr(fd), "end")
			conn, err := net.FileConn(file)
			file.Close()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ends[n] = conn.(*net.UnixConn)
		}
		go func() {
			_, _ = ends[0].Write(b)
			_ = ends[0].CloseWrite()
		}()
		h, body, files, err := channel{ends[1]}.receive(time.Now().Add(20 * time.Second))
		netx.CloseFiles(files)
		if err == nil && (len(body) != h.body || len(b) < headLen+len(body)) {
			t.Errorf("a message of %d bytes out of %d", len(body), len(b))
		}
		if _, err := here().withDefaults().meet(b, "boot"); err == nil && !bytes.Contains(b, []byte(magic)) {
			t.Error("a stranger was met")
		}
	})
}
