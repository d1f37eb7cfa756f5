package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sample is a process at a moment.
type sample struct {
	at       time.Duration // since the load began
	resident float64       // bytes
	files    float64       // open descriptors
}

// process is one of ours, with what has been seen of it.
type process struct {
	program, pod string
	pid          int
	samples      []sample
}

func (p *process) String() string {
	if p.pod == "" {
		return fmt.Sprintf("%s (%d)", p.program, p.pid)
	}
	return p.pod
}

// programs of the mesh that are watched.
func programs() []string { return []string{"pilot-discovery", "ztunnel", "waypoint", "install-cni"} }

// watch looks at the processes of a sandbox.
type watch struct {
	supervisor int
	begin      time.Time

	mu        sync.Mutex // guards the rest
	processes map[birth]*process
}

// birth tells processes from each other: one that has ended may leave its id to another.
type birth struct {
	pid     int
	started string // in ticks since the machine's start
}

func newWatch(b *bed, begin time.Time) (*watch, error) {
	pid, err := b.box.Supervisor()
	return &watch{supervisor: pid, begin: begin, processes: map[birth]*process{}}, err
}

// follow looks every now and then until ctx ends.
func (w *watch) follow(ctx context.Context, every time.Duration) {
	for {
		w.look()
		if !pause(ctx, every) {
			return
		}
	}
}

// look takes a sample of every process.
func (w *watch) look() {
	now := time.Since(w.begin)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, pid := range w.pids() {
		s, err := sampleOf(pid)
		fields := statOf(pid)
		if err != nil || len(fields) <= statStart {
			continue // it has just ended
		}
		s.at = now
		born := birth{pid, fields[statStart]}
		p := w.processes[born]
		if p == nil {
			p = &process{program: programOf(pid), pid: pid, pod: podNameOf(pid)}
			w.processes[born] = p
		}
		p.samples = append(p.samples, s)
	}
}

// pids are those of the mesh's programs.
func (w *watch) pids() []int {
	return slices.DeleteFunc(children(w.supervisor), func(pid int) bool { return !slices.Contains(programs(), programOf(pid)) })
}

func programOf(pid int) string {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return "" // it has ended
	}
	return filepath.Base(exe)
}

// seen lists the processes, by name.
func (w *watch) seen() []*process {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []*process
	for _, p := range w.processes {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *process) int { return strings.Compare(a.program+a.String(), b.program+b.String()) })
	return out
}

// children are the processes that descend from one.
func children(of int) (out []int) {
	parents := map[int]int{}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if fields := statOf(pid); len(fields) > statParent {
			parents[pid], _ = strconv.Atoi(fields[statParent])
		}
	}
	for pid := range parents {
		for p, steps := pid, 0; p > 1 && steps < 64; p, steps = parents[p], steps+1 {
			if p == of && pid != of {
				out = append(out, pid)
				break
			}
		}
	}
	return out
}

// Fields of statOf.
const statParent, statStart = 1, 19

// statOf are the fields of a process's state after its name, which may hold anything; none when it has ended.
func statOf(pid int) []string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
}

func sampleOf(pid int) (s sample, err error) {
	dir := fmt.Sprintf("/proc/%d", pid)
	statm, err := os.ReadFile(filepath.Join(dir, "statm"))
	if err != nil {
		return s, err
	}
	fields := bytes.Fields(statm)
	if len(fields) < 2 {
		return s, errors.New("no memory")
	}
	pages, err := strconv.ParseFloat(string(fields[1]), 64)
	if err != nil {
		return s, err
	}
	files, err := os.ReadDir(filepath.Join(dir, "fd"))
	return sample{resident: pages * float64(os.Getpagesize()), files: float64(len(files))}, err
}

func podNameOf(pid int) string {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return ""
	}
	for line := range bytes.SplitSeq(env, []byte{0}) {
		if name, ok := strings.CutPrefix(string(line), "POD_NAME="); ok {
			return name
		}
	}
	return ""
}

// rest is what a process has open when nobody asks anything of it.
type rest struct{ files, goroutines int }

// resting is what the pods of the data plane have open, by pod.
func (b *bed) resting(ctx context.Context, w *watch, pods []podRef) (map[string]rest, error) {
	out := map[string]rest{}
	pids := map[string]int{}
	for _, pid := range w.pids() {
		pids[podNameOf(pid)] = pid
	}
	for _, pod := range pods {
		n, err := b.metric(ctx, pod, "go_goroutines")
		if err != nil {
			return nil, err
		}
		s, err := sampleOf(pids[pod.name])
		if err != nil {
			return nil, fmt.Errorf("process of %s: %w", pod.name, err)
		}
		out[pod.name] = rest{files: int(s.files), goroutines: int(n)}
	}
	return out, nil
}

// podRef names a pod and the port of its metrics.
type podRef struct {
	namespace, name string
	port            int
	path            string
}

// proxyPods are the pods whose names begin so, with proxies in them.
func (b *bed) proxyPods(ctx context.Context, namespace, prefix string) (out []podRef, err error) {
	pods, err := b.status(ctx, namespace, prefix)
	for _, p := range pods {
		out = append(out, podRef{namespace, p.Name, 15020, "/stats/prometheus"})
	}
	return out, err
}

// metric is the sum of a metric's samples, of a pod.
func (b *bed) metric(ctx context.Context, pod podRef, name string) (float64, error) {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return b.box.Dial(ctx, pod.namespace, pod.name, pod.port)
	}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+pod.path, http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", pod.name, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("metrics of %s: %s", pod.name, response.Status)
	}
	return sum(response.Body, name)
}

// sum adds the samples of a metric up.
func sum(text io.Reader, name string) (total float64, err error) {
	found := false
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		head, value, ok := strings.Cut(lines.Text(), " ")
		if metric, _, _ := strings.Cut(head, "{"); !ok || metric != name {
			continue
		}
		if i := strings.LastIndexByte(value, ' '); i >= 0 { // labels may hold spaces
			value = value[i+1:]
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, err
		}
		total, found = total+v, true
	}
	if !found {
		return 0, fmt.Errorf("there is no metric %s", name)
	}
	return total, lines.Err()
}
