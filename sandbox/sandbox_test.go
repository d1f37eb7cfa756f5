package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	"github.com/isthmus-mesh/isthmus/sandbox"
)

func TestMain(m *testing.M) {
	if handled, exit := sandbox.Main(os.Args); handled {
		os.Exit(exit)
	}
	os.Exit(m.Run())
}

// programs builds what the pods run.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/", "../samples/httpbin/cmd/httpbin", "../samples/tcp-echo/cmd/tcp-echo", "../samples/udp-echo/cmd/udp-echo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	return dir
}

// start brings a sandbox up without the mesh.
func start(t *testing.T) *sandbox.Client {
	t.Helper()
	name := fmt.Sprintf("test-%d", os.Getpid())
	client, err := sandbox.Up(t.Context(), sandbox.Options{Name: name, BinDir: programs(t), Profile: sandbox.ProfileNone})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sandbox.Down(context.Background(), client.StateDir()); err != nil {
			t.Error(err)
		}
	})
	return client
}

func apply(t *testing.T, c *sandbox.Client, manifest string) {
	t.Helper()
	if _, err := c.Apply(t.Context(), "test.yaml", []byte(manifest)); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
}

// run runs a command in a pod that must succeed, and returns its output.
func run(t *testing.T, c *sandbox.Client, pod string, argv ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	code, err := c.Exec(t.Context(), "default", pod, "", argv, sandbox.ExecIO{Stdout: &out, Stderr: &errs})
	if err != nil || code != 0 {
		t.Fatalf("%s: exit code %d, %v: %s%s", strings.Join(argv, " "), code, err, out.String(), errs.String())
	}
	return out.String()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	wait.Until(t, 2*time.Minute, what, ok, nil)
}

// pods lists the pods of namespace default that are not being ended, by the beginning of their name.
func pods(t *testing.T, c *sandbox.Client, prefix string) []sandbox.PodStatus {
	t.Helper()
	status, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []sandbox.PodStatus
	for _, p := range status.Pods {
		if p.Namespace == "default" && strings.HasPrefix(p.Name, prefix) && !p.Terminating {
			out = append(out, p)
		}
	}
	return out
}

const manifest = `apiVersion: apps/v1
kind: Deployment
metadata: {name: client}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      terminationGracePeriodSeconds: 0
      nodeSelector: {kubernetes.io/hostname: node-1}
      containers:
      - name: c
        image: curlimages/curl
        command: [sleep, infinity]
        env:
        - {name: GREETING, value: hello}
        - {name: WHERE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: BOTH, value: "$(GREETING) from $(WHERE)"}
        volumeMounts: [{name: settings, mountPath: /etc/settings}]
      volumes: [{name: settings, configMap: {name: settings}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: red}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: c
        image: docker.io/mccutchen/go-httpbin:2.15
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /status/200, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ipFamilyPolicy: PreferDualStack, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: direct}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: echo}
spec:
  serviceName: echo
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec: {containers: [{name: c, image: docker.io/isthmus/udp-echo-server:dev, args: ["9000", hello]}]}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{name: udp, port: 9000, protocol: UDP}]}
`

func TestPodsAndServices(t *testing.T) {
	c := start(t)
	apply(t, c, manifest)
	const client = "deploy/client"

	t.Run("names and addresses", func(t *testing.T) {
		// Without a readiness probe a pod is ready when its program runs, which may be before it listens.
		for _, argv := range [][]string{
			{"curl", "-sSf", "--max-time", "30", "-o", "/dev/null", "http://web/get"},
			{"curl", "-sSf", "--max-time", "30", "-o", "/dev/null", "http://direct:8080/get"},
			{"bash", "-c", `exec 3<>/dev/udp/echo/9000; echo world >&3; timeout 5 head -c 5 <&3`},
		} {
			eventually(t, strings.Join(argv, " "), func() bool {
				code, err := c.Exec(t.Context(), "default", client, "", argv, sandbox.ExecIO{})
				return err == nil && code == 0
			})
		}
		for _, url := range []string{"http://web/get", "http://web.default.svc.cluster.local/get", "http://direct:8080/get"} {
			run(t, c, client, "curl", "-sSf", "--max-time", "30", "-o", "/dev/null", url)
		}
		run(t, c, client, "curl", "-sSf", "-6", "--max-time", "30", "-o", "/dev/null", "http://web/get")
		if got := run(t, c, client, "bash", "-c", `exec 3<>/dev/udp/echo/9000; echo world >&3; timeout 30 head -c 5 <&3`); got != "hello" {
			t.Errorf("over UDP: %q", got)
		}
		code, err := c.Exec(t.Context(), "default", client, "", []string{"curl", "-sS", "--max-time", "30", "http://nobody"}, sandbox.ExecIO{})
		if err != nil || code != 7 {
			t.Errorf("a Service without endpoints: curl's exit code %d, %v; want 7, refused", code, err)
		}
	})
	t.Run("environment and files", func(t *testing.T) {
		if got := run(t, c, client, "sh", "-c", `echo "$BOTH $(cat /etc/settings/colour) $(hostname)"`); !strings.HasPrefix(got, "hello from node-1 red client-") {
			t.Errorf("%q", got)
		}
		token := run(t, c, client, "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
		if strings.Count(token, ".") != 2 {
			t.Errorf("token %q", token)
		}
		if got := run(t, c, client, "sh", "-c", "ps ax | wc -l"); strings.TrimSpace(got) > "6" {
			t.Errorf("the container sees %s lines of processes", got)
		}
	})
	t.Run("exec", func(t *testing.T) {
		var out bytes.Buffer
		code, err := c.Exec(t.Context(), "default", client, "", []string{"sh", "-c", "cat; exit 3"}, sandbox.ExecIO{Stdin: strings.NewReader("input"), Stdout: &out})
		if err != nil || code != 3 || out.String() != "input" {
			t.Errorf("exit code %d, %q, %v", code, out.String(), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err := c.Exec(ctx, "default", client, "", []string{"sleep", "4711"}, sandbox.ExecIO{}); err == nil {
			t.Error("a command outlived its context")
		}
		eventually(t, "the command ends with its context", func() bool {
			return !strings.Contains(run(t, c, client, "ps", "ax"), "sleep 4711")
		})
	})
	t.Run("scale, restart, delete", func(t *testing.T) {
		if err := c.Scale(t.Context(), "default", "web", 3); err != nil {
			t.Fatal(err)
		}
		eventually(t, "three pods", func() bool { return len(pods(t, c, "web-")) == 3 })
		if err := c.Scale(t.Context(), "default", "web", 1); err != nil {
			t.Fatal(err)
		}
		eventually(t, "one pod", func() bool { return len(pods(t, c, "web-")) == 1 })
		before := pods(t, c, "web-")[0].Name
		if err := c.Restart(t.Context(), "Deployment", "default", "web"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another pod, without a moment without one", func() bool {
			ready := 0
			for _, p := range pods(t, c, "web-") {
				if p.Ready {
					ready++
				}
			}
			if ready == 0 {
				t.Fatal("no pod is ready in the middle of a rolling update")
			}
			now := pods(t, c, "web-")
			return len(now) == 1 && now[0].Name != before
		})
		if err := c.DeleteObject(t.Context(), "statefulset", "default", "echo"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "no pods without their owner", func() bool { return len(pods(t, c, "echo-")) == 0 })
	})
	t.Run("a container that dies is started again", func(t *testing.T) {
		// The shell's own end is by chance: with the first process all others of the container are killed.
		if _, err := c.Exec(t.Context(), "default", "deploy/web", "", []string{"sh", "-c", "kill 1"}, sandbox.ExecIO{}); err != nil {
			t.Error(err)
		}
		eventually(t, "restarted", func() bool { p := pods(t, c, "web-"); return len(p) == 1 && p[0].Restarts > 0 && p[0].Ready })
	})
	t.Run("apply keeps what others have set", func(t *testing.T) {
		ambient := "ambient"
		if err := c.Label(t.Context(), "Namespace", "", "default", map[string]*string{"istio.io/dataplane-mode": &ambient}); err != nil {
			t.Fatal(err)
		}
		if err := c.Scale(t.Context(), "default", "web", 2); err != nil {
			t.Fatal(err)
		}
		apply(t, c, "{apiVersion: v1, kind: Namespace, metadata: {name: default, labels: {more: said}}}\n")
		objects, err := c.List(t.Context(), "Namespace", "")
		if err != nil || !strings.Contains(fmt.Sprintf("%s", objects), `"istio.io/dataplane-mode":"ambient"`) {
			t.Errorf("%s, %v", objects, err)
		}
		apply(t, c, manifest) // which names two replicas
		eventually(t, "two pods", func() bool { return len(pods(t, c, "web-")) == 2 })
	})
	t.Run("what is missing for a volume may come later", func(t *testing.T) {
		if _, err := c.Apply(t.Context(), "later.yaml", []byte(later)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it says what it waits for", func() bool {
			p := pods(t, c, "later")
			return len(p) == 1 && strings.Contains(p[0].Message, "configmap missing does not exist")
		})
		apply(t, c, "{apiVersion: v1, kind: ConfigMap, metadata: {name: missing}, data: {colour: green}}\n")
		if got := run(t, c, "later", "sh", "-c", "cat /etc/more/colour /etc/podinfo/labels"); got != "greenapp=\"later\"\ncolour=\"green\"" {
			t.Errorf("%q", got)
		}
	})
	t.Run("volumes change with what they show", func(t *testing.T) {
		apply(t, c, "{apiVersion: v1, kind: ConfigMap, metadata: {name: missing}, data: {colour: blue, more: much}}\n")
		blue := "blue"
		if err := c.Label(t.Context(), "Pod", "default", "later", map[string]*string{"colour": &blue}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the files are those of now", func() bool {
			return run(t, c, "later", "sh", "-c", "cat /etc/more/colour /etc/more/* /etc/podinfo/labels") == "bluebluemuchapp=\"later\"\ncolour=\"blue\""
		})
	})
	t.Run("a pod ends in order", func(t *testing.T) {
		log, err := c.Logs(t.Context(), "default", "later", "", true, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		if err := c.DeleteObject(t.Context(), "Pod", "default", "later"); err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(log) // it ends with the pod
		said := string(text)
		stop, term := strings.Index(said, "prepared"), strings.Index(said, "told to end")
		if stop < 0 || term < stop {
			log, _ := os.ReadFile(filepath.Join(c.StateDir(), "supervisor.log"))
			t.Errorf("preStop, then SIGTERM: %q; the supervisor: %s", said, log)
		}
	})
	t.Run("what cannot be", func(t *testing.T) {
		for wrong, want := range map[string]string{
			"apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: nowhere}\nspec: {containers: [{name: c, image: curlimages/curl}]}\n": `namespace "nowhere" does not exist`,
			"apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {port: 80}\n":                                                        "port",
			"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec: {action: MAYBE}\n":                     "MAYBE",
			"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x\n":                                                                   "yaml",
		} {
			if _, err := c.Apply(t.Context(), "wrong.yaml", []byte(wrong)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %q in it", wrong, err, want)
			}
		}
		if _, err := c.Apply(t.Context(), "x.yaml", []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: strange}\nspec: {containers: [{name: c, image: example.com/strange:1}]}\n")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the unknown image is named", func() bool {
			p := pods(t, c, "strange")
			return len(p) == 1 && strings.Contains(p[0].Message, "example.com/strange:1")
		})
	})
}

const later = `apiVersion: v1
kind: Pod
metadata: {name: later, labels: {app: later, colour: green}}
spec:
  terminationGracePeriodSeconds: 20
  containers:
  - name: c
    image: curlimages/curl
    command: [bash, -c, "trap 'echo told to end; exit 0' TERM; while true; do sleep 0.1; done"]
    lifecycle: {preStop: {exec: {command: [sh, -c, "echo prepared > /proc/1/fd/1"]}}}
    volumeMounts: [{name: more, mountPath: /etc/more}, {name: info, mountPath: /etc/podinfo}]
  volumes:
  - {name: more, configMap: {name: missing}}
  - {name: info, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
`

func itoa(n int) string { return fmt.Sprint(n) }

// leftovers lists what a sandbox has left on the machine.
func leftovers(stateDir string) []string {
	var out []string
	if _, err := os.Stat(stateDir); err == nil {
		out = append(out, stateDir)
	}
	mounts, _ := os.ReadFile("/proc/mounts")
	for line := range strings.SplitSeq(string(mounts), "\n") {
		if strings.Contains(line, stateDir) {
			out = append(out, line)
		}
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range processes {
		text, _ := os.ReadFile(p)
		if strings.Contains(string(text), stateDir) {
			out = append(out, string(text))
		}
	}
	return out
}

func TestDownLeavesNothingAfterAKill(t *testing.T) {
	c := start(t)
	apply(t, c, manifest)
	if _, err := sandbox.Up(t.Context(), sandbox.Options{StateDir: c.StateDir(), BinDir: ".", Profile: sandbox.ProfileNone}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second one in the same place: %v", err)
	}
	eventually(t, "a pod has its network", func() bool {
		ns, err := c.PodNetNS(t.Context(), "default", pods(t, c, "web-")[0].Name)
		if err != nil {
			return false
		}
		ns.Close()
		return true
	})
	text, err := os.ReadFile(filepath.Join(c.StateDir(), "supervisor.json"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscanf(string(text), `{"pid":%d`, &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the supervisor is gone", func() bool { _, err := sandbox.Connect(c.StateDir()); return err != nil })
	if err := sandbox.Down(t.Context(), c.StateDir()); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(c.StateDir()); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if err := sandbox.Down(t.Context(), c.StateDir()); err != nil {
		t.Errorf("down where there is nothing: %v", err)
	}
}

func TestUpSaysWhatIsMissing(t *testing.T) {
	_, err := sandbox.Up(t.Context(), sandbox.Options{Name: "never", BinDir: t.TempDir(), Nodes: 1000, Profile: "x"})
	for _, want := range []string{"1000 nodes", `profile "x"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	_, err = sandbox.Up(t.Context(), sandbox.Options{Name: "never", BinDir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("without programs: %v", err)
	}
	if _, err := os.Stat(sandbox.StateDir("never")); !errors.Is(err, os.ErrNotExist) {
		t.Error("state of a sandbox that never was")
	}
}
