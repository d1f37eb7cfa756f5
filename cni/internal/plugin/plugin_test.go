package plugin_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/isthmus-mesh/isthmus/cni/internal/plugin"
	"github.com/isthmus-mesh/isthmus/cni/internal/pluginapi"
)

const prevResult = `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/run/netns/x"}],"ips":[{"interface":0,"address":"10.244.1.5/24"},{"interface":0,"address":"fd00::5/64"}]}`

// agent answers the plugin with a status and a text, and keeps what it was asked.
func agent(t *testing.T, status int, text string) (socket string, asked *[]string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "agent.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	asked = &[]string{}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		*asked = append(*asked, r.URL.Path+" "+string(body))
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return socket, asked
}

func args(socket, namespace string, withResult bool) *skel.CmdArgs {
	config := map[string]any{"cniVersion": "1.0.0", "name": "net", "type": "istio-cni", "plugin_event_socket": socket, "exclude_namespaces": []string{"kube-system"}, "unknown": 1}
	if withResult {
		config["prevResult"] = json.RawMessage(prevResult)
	}
	stdin, _ := json.Marshal(config)
	return &skel.CmdArgs{
		ContainerID: "c1", Netns: "/run/netns/x", IfName: "eth0", StdinData: stdin,
		Args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=" + namespace + ";K8S_POD_NAME=web-1;K8S_POD_UID=u1",
	}
}

// capture returns what fn prints.
func capture(t *testing.T, fn func() error) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = w
	err = fn()
	os.Stdout = stdout
	w.Close()
	out, readErr := io.ReadAll(r)
	if readErr != nil {
		t.Fatal(readErr)
	}
	return string(out), err
}

func TestAddPassesTheResultThrough(t *testing.T) {
	socket, asked := agent(t, 200, `{"Enrolled":true}`)
	out, err := capture(t, func() error { return plugin.Add(args(socket, "shop", true)) })
	if err != nil || !strings.Contains(out, "10.244.1.5/24") || !strings.Contains(out, "fd00::5/64") {
		t.Errorf("%v: %s", err, out)
	}
	if len(*asked) != 1 {
		t.Fatalf("asked %v", *asked)
	}
	path, body, _ := strings.Cut((*asked)[0], " ")
	var request pluginapi.Request
	if err := json.Unmarshal([]byte(body), &request); err != nil || path != "/cmdadd" || request.PodUID != "u1" || request.PodNamespace != "shop" ||
		request.Netns != "/run/netns/x" || request.ContainerID != "c1" || strings.Join(request.IPs, " ") != "10.244.1.5 fd00::5" {
		t.Errorf("%s %+v %v", path, request, err)
	}
}

// The runtime reads standard output as the result, and nothing else may be there.
func TestWhatIsDoneIsLogged(t *testing.T) {
	socket, _ := agent(t, 500, "enrol: no ztunnel is connected")
	for _, command := range []func(*skel.CmdArgs) error{plugin.Add, plugin.Del} {
		if out, _ := capture(t, func() error { return command(with(t, args(socket, "shop", true), "plugin_log_level", "info")) }); out != "" {
			t.Errorf("printed %q", out)
		}
	}
	if _, err := capture(t, func() error {
		return plugin.Add(with(t, args(socket, "kube-system", true), "plugin_log_level", "debug"))
	}); err != nil {
		t.Error(err)
	}
	log, err := os.ReadFile(filepath.Join(filepath.Dir(socket), "istio-cni.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"level":"error","msg":"CNI ADD failed"`, `"msg":"CNI DEL failed"`, `"pod":"shop/web-1"`, "no ztunnel is connected", `"level":"debug","msg":"CNI ADD passed on"`} {
		if !strings.Contains(string(log), want) {
			t.Errorf("no %s in\n%s", want, log)
		}
	}
}

func TestAddFailsClosed(t *testing.T) {
	refusing, _ := agent(t, 500, "enrol: no ztunnel is connected")
	for name, tt := range map[string]struct {
		args *skel.CmdArgs
		code uint
		says string
	}{
		"agent away":            {args("/nowhere/agent.sock", "shop", true), types.ErrTryAgainLater, "does not answer"},
		"agent refuses":         {args(refusing, "shop", true), types.ErrTryAgainLater, "no ztunnel is connected"},
		"first in the chain":    {args(refusing, "shop", false), types.ErrInvalidNetworkConfig, "chained"},
		"not a configuration":   {&skel.CmdArgs{StdinData: []byte("{")}, types.ErrDecodingFailure, "istio-cni"},
		"result not a result":   {&skel.CmdArgs{StdinData: []byte(`{"cniVersion":"1.0.0","prevResult":{"ips":7}}`)}, types.ErrDecodingFailure, "before istio-cni"},
		"version of the future": {&skel.CmdArgs{StdinData: []byte(`{"cniVersion":"9.0.0","prevResult":{}}`)}, types.ErrDecodingFailure, "before istio-cni"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := capture(t, func() error { return plugin.Add(tt.args) })
			var cniErr *types.Error
			if !errors.As(err, &cniErr) || cniErr.Code != tt.code || !strings.Contains(cniErr.Msg+cniErr.Details, tt.says) || out != "" {
				t.Errorf("%v, printed %q", err, out)
			}
		})
	}
}

func TestExcludedNamespacesNeedNoAgent(t *testing.T) {
	out, err := capture(t, func() error { return plugin.Add(args("/nowhere/agent.sock", "kube-system", true)) })
	if err != nil || !strings.Contains(out, "10.244.1.5/24") {
		t.Errorf("%v: %s", err, out)
	}
}

// with adds a setting to the plugin's configuration.
func with(t *testing.T, a *skel.CmdArgs, key string, value any) *skel.CmdArgs {
	t.Helper()
	var config map[string]any
	if err := json.Unmarshal(a.StdinData, &config); err != nil {
		t.Fatal(err)
	}
	config[key] = value
	a.StdinData, _ = json.Marshal(config)
	return a
}

func TestSystemNamespacesStartWhileTheAgentIsAway(t *testing.T) {
	system := []string{"istio-system"}
	out, err := capture(t, func() error {
		return plugin.Add(with(t, args("/nowhere/agent.sock", "istio-system", true), "system_namespaces", system))
	})
	if err != nil || !strings.Contains(out, "10.244.1.5/24") {
		t.Errorf("away: %v: %s", err, out)
	}
	refusing, asked := agent(t, 500, "no")
	if _, err := capture(t, func() error {
		return plugin.Add(with(t, args(refusing, "istio-system", true), "system_namespaces", system))
	}); err == nil || len(*asked) != 1 {
		t.Errorf("an agent that is there does not count: %v, asked %v", err, *asked)
	}
	if _, err := capture(t, func() error {
		return plugin.Add(with(t, args("/nowhere/agent.sock", "shop", true), "system_namespaces", system))
	}); err == nil {
		t.Error("a pod of another namespace has started without the agent")
	}
}

func TestUnchained(t *testing.T) {
	socket, asked := agent(t, 200, `{"Enrolled":true}`)
	out, err := capture(t, func() error { return plugin.Add(with(t, args(socket, "shop", false), "unchained", true)) })
	if err != nil || len(*asked) != 1 || !strings.Contains(out, `"cniVersion": "1.0.0"`) {
		t.Errorf("%v, asked %v: %s", err, *asked, out)
	}
}

func TestDelIsLenient(t *testing.T) {
	if err := plugin.Del(args("/nowhere/agent.sock", "shop", false)); err != nil {
		t.Error(err)
	}
	socket, asked := agent(t, 200, "{}")
	if err := plugin.Del(args(socket, "shop", false)); err != nil || len(*asked) != 1 || !strings.HasPrefix((*asked)[0], "/cmddel ") {
		t.Errorf("%v, asked %v", err, *asked)
	}
}

func TestThePluginLinksNoKubernetes(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "../../cmd/istio-cni").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		if strings.HasPrefix(line, "k8s.io/") || strings.HasPrefix(line, "sigs.k8s.io/") {
			t.Errorf("it links %s", line)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"n","type":"istio-cni","prevResult":` + prevResult + `}`))
	f.Add([]byte(`{"cniVersion":"0.3.1","prevResult":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		config, _, err := plugin.ParseConfig(data)
		if err == nil && config == nil {
			t.Error("neither a configuration nor an error")
		}
	})
}
