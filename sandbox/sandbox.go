// Package sandbox runs the mesh on one Linux machine without a cluster: nodes and pods are namespaces, images are local
// programs, manifests are ordinary Kubernetes YAML.
//
// Up starts a supervisor, a process of its own, and returns a Client for it; Connect finds one that runs; Down takes it and
// everything that belongs to it away. A program that calls Up must call Main first thing in its main function: the
// supervisor is the same program, started again.
package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/api"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/network"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/runtime"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/supervisor"
)

// StateRoot is where sandboxes keep their state, each in a directory of its name.
const StateRoot = "/run/isthmus"

// Profiles of what runs besides the user's own pods.
const (
	// ProfileAmbient is the mesh: control plane, ztunnel and the CNI agent.
	ProfileAmbient = api.ProfileAmbient
	// ProfileDemo is the mesh and an ingress gateway.
	ProfileDemo = api.ProfileDemo
	// ProfileNone is a cluster without a mesh.
	ProfileNone = api.ProfileNone
)

const (
	// argument by which a program knows that it is to be a supervisor.
	argument = "sandbox-supervisor"
	pidFile  = "supervisor.json"
	// marker is the file by which a state directory is known: nothing else is ever removed.
	marker  = ".isthmus-sandbox"
	logFile = "supervisor.log"
	// upTimeout bounds the start of the mesh's own pods.
	upTimeout = 2 * time.Minute
	poll      = 50 * time.Millisecond
)

// Options of a sandbox.
type Options struct {
	// Name tells sandboxes apart; StateDir is StateRoot/Name unless set.
	Name, StateDir string
	// Nodes is how many there are, 2 unless set.
	Nodes int
	// BinDir holds the programs of the mesh and the samples.
	BinDir string
	// Profile is ProfileAmbient unless set.
	Profile string
	// Publish opens ports on the machine: "127.0.0.1:9080=default/productpage:9080".
	Publish []string
	// Redirection is how traffic of pods gets to ztunnel: sklookup, nft, iptables, or "" for what the CNI agent chooses.
	Redirection string
	Log         *slog.Logger
}

// StateDir is where the sandbox of a name keeps its state.
func StateDir(name string) string { return filepath.Join(StateRoot, "sandbox-"+name) }

func (o Options) complete() (Options, error) {
	if o.Name == "" {
		o.Name = "default"
	}
	if o.StateDir == "" {
		o.StateDir = StateDir(o.Name)
	}
	if o.Nodes == 0 {
		o.Nodes = 2
	}
	if o.Profile == "" {
		o.Profile = ProfileAmbient
	}
	var problems []error
	if os.Geteuid() != 0 {
		problems = append(problems, errors.New("it needs root, to make namespaces: run it with sudo"))
	}
	if o.Nodes < 1 || o.Nodes > network.MaxNodes {
		problems = append(problems, fmt.Errorf("%d nodes: want 1 to %d", o.Nodes, network.MaxNodes))
	}
	if bad := validation.IsDNS1123Label(o.Name); len(bad) > 0 {
		problems = append(problems, fmt.Errorf("name %q: %s", o.Name, strings.Join(bad, "; ")))
	}
	for command, pkg := range map[string]string{"nft": "nftables", "/usr/lib/cni/ptp": "containernetworking-plugins", "/usr/lib/cni/host-local": "containernetworking-plugins"} {
		if _, err := exec.LookPath(command); err != nil {
			problems = append(problems, fmt.Errorf("%s is missing: install the package %s", command, pkg))
		}
	}
	if !slices.Contains([]string{"", "sklookup", "nft", "iptables"}, o.Redirection) {
		problems = append(problems, fmt.Errorf("redirection by %q: want sklookup, nft or iptables", o.Redirection))
	}
	var needed []string
	switch o.Profile {
	case ProfileAmbient, ProfileDemo:
		needed = []string{"pilot-discovery", "ztunnel", "install-cni", "istio-cni", "waypoint"}
	case ProfileNone:
	default:
		problems = append(problems, fmt.Errorf("profile %q: want %s, %s or %s", o.Profile, ProfileAmbient, ProfileDemo, ProfileNone))
	}
	for _, program := range needed {
		if _, err := os.Stat(filepath.Join(o.BinDir, program)); err != nil {
			problems = append(problems, fmt.Errorf("program %s is not in %q: run make build", program, o.BinDir))
		}
	}
	return o, errors.Join(problems...)
}

// Main is the supervisor or a container's first process, if the program was started as one; then handled is true and exit
// the code to exit with.
func Main(args []string) (handled bool, exit int) {
	if len(args) > 2 && args[1] == runtime.InitArgument {
		fmt.Fprintln(os.Stderr, "start:", runtime.Init(args[2:]))
		return true, 127
	}
	if len(args) != 3 || args[1] != argument {
		return false, 0
	}
	log, _ := telemetry.NewLogger(os.Stdout, telemetry.Options{Scope: "sandbox"})
	var cfg supervisor.Config
	err := json.Unmarshal([]byte(args[2]), &cfg)
	if err == nil {
		err = sayWho(cfg.StateDir)
	}
	if err == nil {
		err = ownMounts()
	}
	if err == nil {
		err = supervisor.Run(context.Background(), cfg, log)
	}
	if err != nil {
		log.Error("sandbox ended", "error", err)
		return true, 1
	}
	return true, 0
}

// ownMounts makes this process's mounts invisible to others, and /proc that of its PID namespace.
func ownMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("separate mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// Up starts a sandbox and returns once the mesh's own pods are ready.
func Up(ctx context.Context, options Options) (*Client, error) {
	o, err := options.complete()
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	if p, err := readProcess(o.StateDir); err == nil && p.alive() {
		return nil, fmt.Errorf("sandbox: one runs in %s already: take it down first, or choose another name", o.StateDir)
	}
	if err := claim(ctx, o.StateDir); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	bin, err := filepath.Abs(o.BinDir)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	ended, err := start(supervisor.Config{StateDir: o.StateDir, Nodes: o.Nodes, BinDir: bin, Profile: o.Profile, Publish: o.Publish, Redirection: o.Redirection})
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	client := newClient(o.StateDir)
	if err := client.waitUp(ctx, ended); err != nil {
		err = fmt.Errorf("sandbox: %w%s", err, lastLines(o.StateDir))
		return nil, errors.Join(err, Down(context.WithoutCancel(ctx), o.StateDir))
	}
	return client, nil
}

// start starts the supervisor; the channel is closed when it has ended.
func start(cfg supervisor.Config) (<-chan struct{}, error) {
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(cfg.StateDir, logFile))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(self, argument, string(text)) //nolint:noctx // it outlives this process
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the supervisor: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // whoever waits learns the reason from the log
	}()
	return ended, nil
}

// lastLines are the end of the supervisor's log.
func lastLines(dir string) string {
	text, err := os.ReadFile(filepath.Join(dir, logFile))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if err != nil || lines[0] == "" {
		return ""
	}
	return "\n  " + strings.Join(lines[max(0, len(lines)-5):], "\n  ")
}

// Down takes the sandbox in a state directory away: its supervisor and with it every process, namespace and mount, then the
// directory. It succeeds when there is nothing (any more).
func Down(ctx context.Context, stateDir string) error {
	if err := discard(ctx, stateDir); err != nil {
		return fmt.Errorf("take the sandbox down: %w", err)
	}
	return nil
}

// Connect returns a client of the sandbox that runs in a state directory.
func Connect(stateDir string) (*Client, error) {
	p, err := readProcess(stateDir)
	if err != nil || !p.alive() {
		return nil, fmt.Errorf("no sandbox runs in %s: start one with istioctl sandbox up", stateDir)
	}
	return newClient(stateDir), nil
}

// inSupervisor is a path of the supervisor's file system as this process sees it.
func inSupervisor(stateDir, path string) (string, error) {
	p, err := readProcess(stateDir)
	if err != nil {
		return "", err
	}
	return filepath.Join("/proc", strconv.Itoa(p.PID), "root", path), nil
}

// The types of the API are this package's too.
type (
	// Status of a sandbox.
	Status = api.Status
	// PodStatus is one pod.
	PodStatus = api.PodStatus
	// Result says what became of one object.
	Result = api.Result
)
