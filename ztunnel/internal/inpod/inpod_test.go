package inpod

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pkg/api/zds"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/proxy"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

// recorder stands for the proxies.
type recorder struct {
	mu      sync.Mutex // guards the rest
	failing error
	running map[string]proxy.Info
	added   int
}

func (r *recorder) StartPod(_ context.Context, pod proxy.Pod) (Instance, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failing != nil {
		return nil, r.failing
	}
	r.running[pod.UID] = pod.Info
	return &recorded{r, pod.UID}, nil
}

func (r *recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failing = err
}

func (r *recorder) PodAdded(proxy.Info)   { r.added++ }
func (r *recorder) PodRemoved(proxy.Info) { r.added-- }

func (r *recorder) has(uid string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.running[uid]
	return ok
}

type recorded struct {
	recorder *recorder
	uid      string
}

func (i *recorded) Connections() (inbound, outbound []proxy.ConnInfo) { return nil, nil }

func (i *recorded) Drain(context.Context) {
	i.recorder.mu.Lock()
	defer i.recorder.mu.Unlock()
	delete(i.recorder.running, i.uid)
}

// agent is the other side of the protocol, written from its description.
type agent struct {
	t        *testing.T
	listener *net.UnixListener
	conn     *net.UnixConn
}

func newBed(t *testing.T) (*agent, *recorder, *Manager) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "ztunnel.sock")
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{running: map[string]proxy.Info{}}
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	m := NewManager(Config{Socket: socket, DrainTimeout: time.Second, Starter: r, Observer: r, Log: slog.New(slog.DiscardHandler), Metrics: metrics})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	a := &agent{t: t, listener: listener}
	t.Cleanup(func() {
		cancel()
		<-ended
		m.Drain(ctx)
		a.listener.Close()
		if a.conn != nil {
			a.conn.Close()
		}
	})
	return a, r, m
}

// accept takes the next connection and reads its greeting.
func (a *agent) accept() {
	a.t.Helper()
	a.listener.SetDeadline(time.Now().Add(30 * time.Second))
	conn, err := a.listener.AcceptUnix()
	if err != nil {
		a.t.Fatal(err)
	}
	a.conn = conn
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	buf := make([]byte, 1024)
	n, err := conn.Read(buf)
	if err != nil || !bytes.Equal(buf[:n], []byte{8, 1}) {
		a.t.Fatalf("greeting %x, %v; want version 1", buf[:n], err)
	}
}

// send sends a packet with files, and returns the error in the answer.
func (a *agent) send(packet []byte, files ...*os.File) string {
	a.t.Helper()
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = syscall.UnixRights(fds...)
	}
	if _, _, err := a.conn.WriteMsgUnix(packet, rights, nil); err != nil {
		a.t.Fatal(err)
	}
	buf := make([]byte, 1024)
	n, err := a.conn.Read(buf)
	if err != nil {
		a.t.Fatal(err)
	}
	var response zds.WorkloadResponse
	if err := proto.Unmarshal(buf[:n], &response); err != nil || response.GetAck() == nil {
		a.t.Fatalf("answer %x: %v", buf[:n], err)
	}
	return response.GetAck().GetError()
}

func (a *agent) request(r *zds.WorkloadRequest, files ...*os.File) string {
	a.t.Helper()
	packet, err := proto.Marshal(r)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.send(packet, files...)
}

func add(uid string) *zds.WorkloadRequest {
	return &zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Add{Add: &zds.AddWorkload{
		Uid: uid, WorkloadInfo: &zds.WorkloadInfo{Name: "web-" + uid, Namespace: "shop", ServiceAccount: "web"},
	}}}
}

func keep(uid string) *zds.WorkloadRequest {
	return &zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Keep{Keep: &zds.KeepWorkload{Uid: uid}}}
}

func del(uid string) *zds.WorkloadRequest {
	return &zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Del{Del: &zds.DelWorkload{Uid: uid}}}
}

func sent() *zds.WorkloadRequest {
	return &zds.WorkloadRequest{Payload: &zds.WorkloadRequest_SnapshotSent{SnapshotSent: &zds.SnapshotSent{}}}
}

func ownNetns(t *testing.T) *os.File {
	t.Helper()
	file, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	wait.Until(t, 30*time.Second, what, ok, nil)
}

func want(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("answer %q, want %q", got, want)
	}
}

func TestSnapshotThenChanges(t *testing.T) {
	a, r, m := newBed(t)
	a.accept()
	want(t, a.request(add("1"), ownNetns(t)), "")
	select {
	case <-m.Synced():
		t.Error("synced before the snapshot's end")
	default:
	}
	want(t, a.request(sent()), "")
	eventually(t, "synced", func() bool {
		select {
		case <-m.Synced():
			return true
		default:
			return false
		}
	})
	want(t, a.request(add("2"), ownNetns(t)), "")
	want(t, a.request(add("2"), ownNetns(t)), "") // again: nothing to do
	if pods := m.Pods(); len(pods) != 2 || !pods[0].Running || pods[1].Pod.Name != "web-2" {
		t.Errorf("pods %+v", pods)
	}
	want(t, a.request(del("1")), "")
	want(t, a.request(del("unknown")), "")
	eventually(t, "pod 1 drained", func() bool { return !r.has("1") })
}

func TestInstancesOutliveTheConnection(t *testing.T) {
	a, r, _ := newBed(t)
	a.accept()
	for _, uid := range []string{"1", "2", "3"} {
		want(t, a.request(add(uid), ownNetns(t)), "")
	}
	want(t, a.request(sent()), "")
	a.conn.Close()
	a.accept()
	if !r.has("1") || !r.has("2") {
		t.Error("instances ended with the connection")
	}
	want(t, a.request(keep("1")), "")
	want(t, a.request(add("2"), ownNetns(t)), "")
	want(t, a.request(sent()), "")
	eventually(t, "the one not named drained", func() bool { return !r.has("3") })
	if !r.has("1") || !r.has("2") {
		t.Error("named instances ended")
	}
}

func TestFailedStartIsReportedAndTriedAgain(t *testing.T) {
	a, r, m := newBed(t)
	r.fail(errors.New("no such luck"))
	a.accept()
	want(t, a.request(add("1"), ownNetns(t)), "failure to start proxy : no such luck")
	want(t, a.request(sent()), "")
	select {
	case <-m.Synced():
		t.Error("synced with a pod pending")
	default:
	}
	r.fail(nil)
	eventually(t, "started by itself", func() bool { return r.has("1") })
	<-m.Synced()
}

func TestUnreadableMessagesEndTheConnection(t *testing.T) {
	whole, err := proto.Marshal(add("1"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		packet []byte
		files  int
		want   string
	}{
		"add without a namespace":    {whole, 0, "failure to read message : add with 0 network namespaces, want 1"},
		"add with two":               {whole, 2, "failure to read message : add with 2 network namespaces, want 1"},
		"file where none belongs":    {[]byte{26, 0}, 1, "failure to read message : file descriptor where none belongs"},
		"field number not ours":      {[]byte{0x7a, 0}, 0, "failure to read message : message without payload"},
		"longer than a packet holds": {bytes.Repeat([]byte{0x7a, 0}, 600), 0, "failure to read message : message truncated at 1024 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			a, _, _ := newBed(t)
			a.accept()
			files := []*os.File{ownNetns(t), ownNetns(t)}
			want(t, a.send(tt.packet, files[:tt.files]...), tt.want)
			a.accept() // it comes again
		})
	}
}

func FuzzCheck(f *testing.F) {
	for _, r := range []*zds.WorkloadRequest{add("1"), keep("1"), del("1"), sent()} {
		packet, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet, 0, 1)
	}
	f.Fuzz(func(t *testing.T, packet []byte, flags, files int) {
		var r zds.WorkloadRequest
		err := check(&r, packet, flags, files)
		if _, isAdd := r.GetPayload().(*zds.WorkloadRequest_Add); err == nil && isAdd != (files == 1) {
			t.Errorf("%v accepted with %d files", &r, files)
		}
	})
}
