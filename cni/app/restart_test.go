package app

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/cni/internal/nettest"
	"github.com/isthmus-mesh/isthmus/pkg/api/zds"
)

// inOwnNetwork is set in the process that has a network namespace of its own: the agent changes the rules of the node it is on.
const inOwnNetwork = "RESTART_TEST_IN_OWN_NETWORK"

const patience = time.Minute

// A proxy stops what a snapshot does not name. So an agent that starts again must not serve one before the pods that it knows are
// in it, however long its source takes to read.
func TestARestartNamesEveryPodInTheFirstSnapshot(t *testing.T) {
	if os.Getenv(inOwnNetwork) == "" {
		self := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		self.Env = append(os.Environ(), inOwnNetwork+"=1")
		self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if out, err := self.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	cfg := node(t, dir, 2000)
	told := make(chan string, 100)
	go proxy(t.Context(), cfg.ZDSSocket, told)

	stop := start(t, cfg)
	if got := snapshot(t, told); !slices.Equal(got, []string{"sent"}) {
		t.Fatalf("an agent without pods says %q", got)
	}
	takesTheLog(t, cfg.logSocket())
	pod := nettest.New(t)
	addPod(t, cfg.PluginSocket, fmt.Sprintf("/proc/self/fd/%d", pod.Fd()))
	if got := next(t, told); got != "add u1" {
		t.Fatalf("ADD says %q", got)
	}
	for range 3 {
		stop()
		stop = start(t, cfg)
		if got := snapshot(t, told); !slices.Equal(got, []string{"add u1", "sent"}) {
			t.Errorf("a restart says %q", got)
		}
	}
	stop()
}

// node is the configuration of an agent whose source holds one enrolled pod, and others that only take time.
func node(t *testing.T, dir string, others int) Config {
	t.Helper()
	objects := filepath.Join(dir, "config")
	if err := os.Mkdir(objects, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(objects, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.yaml", `apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, uid: u1, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n1, containers: [{name: a, image: b}]}
`)
	for i := range others {
		write(fmt.Sprintf("p%d.yaml", i), fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: p%d, namespace: shop, uid: x%d}\nspec: {nodeName: n2, containers: [{name: a, image: b}]}\n", i, i))
	}
	api, err := net.Listen("unix", filepath.Join(dir, "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: patience}
	go server.Serve(api)
	t.Cleanup(func() { server.Close() })
	cfg := Default()
	cfg.Node, cfg.ConfigDir, cfg.APISocket = "n1", objects, filepath.Join(dir, "api.sock")
	cfg.ZDSSocket, cfg.PluginSocket, cfg.StateFile = filepath.Join(dir, "z.sock"), filepath.Join(dir, "p.sock"), filepath.Join(dir, "pods.json")
	cfg.HealthAddr, cfg.MonitoringAddr, cfg.Log = "127.0.0.1:0", "127.0.0.1:0", slog.New(slog.DiscardHandler)
	return cfg
}

// start runs an agent until stop is called.
func start(t *testing.T, cfg Config) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- Run(ctx, cfg) }()
	return func() {
		cancel()
		if err := <-end; err != nil {
			t.Error(err)
		}
	}
}

func next(t *testing.T, told <-chan string) string {
	t.Helper()
	select {
	case s := <-told:
		return s
	case <-time.After(patience):
		t.Fatal("the agent says nothing")
		return ""
	}
}

// snapshot is what the next connection of the proxy that is told anything begins with; what an older one is still told does not count.
func snapshot(t *testing.T, told <-chan string) []string {
	t.Helper()
	var got []string
	for connected := false; ; {
		switch s := next(t, told); {
		case s == "connected":
			got, connected = nil, true
		case !connected: // a pod may be named again at any time
		case s == "sent":
			return append(got, s)
		default:
			got = append(got, s)
		}
	}
}

// addPod is what the plugin does at a pod's creation; it tries until the agent listens.
func addPod(t *testing.T, socket, netns string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"Netns": netns, "PodName": "web", "PodNamespace": "shop", "PodUID": "u1", "ContainerID": "c", "IPs": []string{"10.9.0.2"}})
	if err != nil {
		t.Fatal(err)
	}
	post(t, socket, "/cmdadd", string(body))
}

// takesTheLog says something as the plugin does when it has ended.
func takesTheLog(t *testing.T, socket string) {
	t.Helper()
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	post(t, socket, "/log", `["{\"msg\":\"said\"}"]`)
}

func post(t *testing.T, socket, path, body string) {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://agent"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", path, response.Status)
	}
}

// proxy connects as soon as it can, acknowledges everything, and tells what it was told.
func proxy(ctx context.Context, path string, told chan<- string) {
	for ctx.Err() == nil {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
			continue
		}
		told <- "connected"
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		converse(conn, told)
		stop()
		conn.Close()
	}
}

func converse(conn *net.UnixConn, told chan<- string) {
	hello, err := proto.Marshal(&zds.ZdsHello{Version: zds.Version_V1})
	if err == nil {
		_, err = conn.Write(hello)
	}
	ack, _ := proto.Marshal(&zds.WorkloadResponse{Payload: &zds.WorkloadResponse_Ack{Ack: &zds.Ack{}}})
	buf, control := make([]byte, 1024), make([]byte, 128)
	for err == nil {
		var n, m int
		if n, m, _, _, err = conn.ReadMsgUnix(buf, control); err != nil || n == 0 {
			return
		}
		if messages, err := syscall.ParseSocketControlMessage(control[:m]); err == nil && len(messages) > 0 {
			fds, _ := syscall.ParseUnixRights(&messages[0])
			for _, fd := range fds {
				syscall.Close(fd)
			}
		}
		var r zds.WorkloadRequest
		if err = proto.Unmarshal(buf[:n], &r); err != nil {
			return
		}
		switch {
		case r.GetAdd() != nil:
			told <- "add " + r.GetAdd().GetUid()
		case r.GetSnapshotSent() != nil:
			told <- "sent"
		default:
			told <- r.String()
		}
		_, err = conn.Write(ack)
	}
}
