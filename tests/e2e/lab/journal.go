package lab

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// journalLook is the time between two looks for pods that are new.
const journalLook = 500 * time.Millisecond

// Pods names the pods of a namespace that a selector matches.
type Pods struct{ Namespace, Selector string }

// Journal keeps what pods log while it is open, also of those that come and go meanwhile: once a pod is gone, so are its logs.
type Journal struct {
	cluster *Cluster
	stop    context.CancelFunc
	work    sync.WaitGroup

	mu      sync.Mutex // guards the rest
	lines   []line
	reading map[string]bool      // by pod and container
	last    map[string]time.Time // likewise: of the last line
}

// line is one line of a container's log.
type line struct {
	at         time.Time
	from, text string
}

// OpenJournal follows the logs of pods from now on. Close it.
func (c *Cluster) OpenJournal(ctx context.Context, of ...Pods) *Journal {
	ctx, stop := context.WithCancel(ctx)
	j := &Journal{cluster: c, stop: stop, reading: map[string]bool{}, last: map[string]time.Time{}}
	begin := time.Now()
	j.work.Go(func() {
		look := time.NewTicker(journalLook)
		defer look.Stop()
		for {
			for _, p := range of {
				j.look(ctx, p, begin)
			}
			select {
			case <-look.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return j
}

// Close ends the following. What was read stays.
func (j *Journal) Close() {
	j.stop()
	j.work.Wait()
}

// look follows the containers that are not followed yet. Those that can't be are tried again.
func (j *Journal) look(ctx context.Context, of Pods, begin time.Time) {
	list, err := j.cluster.Client.CoreV1().Pods(of.Namespace).List(ctx, metav1.ListOptions{LabelSelector: of.Selector})
	if err != nil {
		return
	}
	for i := range list.Items {
		pod := &list.Items[i]
		for _, s := range pod.Status.ContainerStatuses {
			name := pod.Name + "/" + s.Name
			if s.State.Running == nil || !j.take(name) {
				continue
			}
			since := j.since(name, begin)
			j.work.Go(func() {
				defer j.give(name)
				j.read(ctx, pod, s.Name, since)
			})
		}
	}
}

func (j *Journal) take(name string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.reading[name] {
		return false
	}
	j.reading[name] = true
	return true
}

func (j *Journal) give(name string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.reading, name)
}

// since is from when lines are wanted that have not been read.
func (j *Journal) since(name string, begin time.Time) time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	if last, ok := j.last[name]; ok {
		return last
	}
	return begin
}

// read follows one container until it ends.
func (j *Journal) read(ctx context.Context, pod *corev1.Pod, container string, since time.Time) {
	name, from := pod.Name+"/"+container, metav1.NewTime(since)
	stream, err := j.cluster.Client.CoreV1().Pods(pod.Namespace).
		GetLogs(pod.Name, &corev1.PodLogOptions{Container: container, Follow: true, Timestamps: true, SinceTime: &from}).Stream(ctx)
	if err != nil {
		return
	}
	defer stream.Close()
	for lines := bufio.NewScanner(stream); lines.Scan(); {
		stamp, text, _ := strings.Cut(lines.Text(), " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil || !at.After(since) { // the API server counts in whole seconds
			continue
		}
		j.add(line{at, name, text})
	}
}

func (j *Journal) add(l line) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, l)
	j.last[l.from] = l.at
}

// Between is the lines of all pods from one time to another, in order, each with its time and pod.
func (j *Journal) Between(from, to time.Time) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var chosen []line
	for _, l := range j.lines {
		if !l.at.Before(from) && !l.at.After(to) {
			chosen = append(chosen, l)
		}
	}
	slices.SortStableFunc(chosen, func(a, b line) int { return a.at.Compare(b.at) })
	var out strings.Builder
	for _, l := range chosen {
		fmt.Fprintf(&out, "%s %s: %s\n", l.at.UTC().Format("15:04:05.000"), l.from, l.text)
	}
	return out.String()
}
