package nodeagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/cni/internal/pluginapi"
)

// maxRequest bounds what the plugin sends, in bytes.
const maxRequest = 64 << 10

// Handler serves the plugin's requests.
func (a *Agent) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pluginapi.PathAdd, a.serve("add", a.add))
	mux.HandleFunc("POST "+pluginapi.PathDel, a.serve("del", func(_ context.Context, r pluginapi.Request) (pluginapi.Answer, error) {
		return pluginapi.Answer{}, a.del(r)
	}))
	return mux
}

func (a *Agent) serve(command string, do func(context.Context, pluginapi.Request) (pluginapi.Answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var request pluginapi.Request
		decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
		if err := decoder.Decode(&request); err != nil {
			http.Error(w, "request: "+err.Error(), http.StatusBadRequest)
			return
		}
		answer, err := do(r.Context(), request)
		if err != nil {
			a.cfg.Metrics.requests.WithLabelValues(command, "error").Inc()
			a.cfg.Log.Error("CNI "+command+" failed", "pod", request.PodNamespace+"/"+request.PodName, "error", err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		a.cfg.Metrics.requests.WithLabelValues(command, "ok").Inc()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer) // the plugin is gone
	}
}

// add takes a pod that has just got its network, and enrols it before it starts if it belongs into the mesh.
func (a *Agent) add(ctx context.Context, request pluginapi.Request) (pluginapi.Answer, error) {
	ips := make([]netip.Addr, 0, len(request.IPs))
	for _, text := range request.IPs {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return pluginapi.Answer{}, fmt.Errorf("address of the pod: %w", err)
		}
		ips = append(ips, ip)
	}
	pod, err := a.awaitPod(ctx, request)
	if err != nil {
		return pluginapi.Answer{}, err
	}
	r, err := a.recordOf(request, pod, ips)
	if err != nil {
		return pluginapi.Answer{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.early.Store(a.cfg.Backend.Early != nil) // before it is saved: what is to be there counts as being there
	if err := a.remember(r); err != nil {
		return pluginapi.Answer{}, err
	}
	_, current, want := a.find(r.saved.UID)
	if current == nil || !want {
		return pluginapi.Answer{}, nil
	}
	a.cfg.Metrics.events.WithLabelValues("add").Inc()
	if err := a.enrol(a.ctx, r, current, true); err != nil { //nolint:contextcheck // a plugin that hangs up must not leave half of it
		r.removed = true
		a.forget(r)
		return pluginapi.Answer{}, fmt.Errorf("enrol: %w", err)
	}
	return pluginapi.Answer{Enrolled: true}, nil
}

// recordOf makes the record of a pod that has just got its network. The namespace must not be the node's.
func (a *Agent) recordOf(request pluginapi.Request, pod *corev1.Pod, ips []netip.Addr) (*record, error) {
	path := request.Netns
	if rest, ok := strings.CutPrefix(path, "/proc/"); ok && a.cfg.Proc != "" {
		path = filepath.Join(a.cfg.Proc, rest) // a runtime without named namespaces
	}
	r, err := newRecord(savedPod{
		UID: string(pod.UID), Name: pod.Name, Namespace: pod.Namespace, Container: request.ContainerID, Netns: path, IPs: ips,
	})
	if err != nil {
		return nil, err
	}
	if r.saved.Identity == a.cfg.HostNetns {
		r.netns.Close()
		return nil, fmt.Errorf("network namespace %s is the node's", request.Netns)
	}
	if len(r.saved.IPs) == 0 { // the plugin follows no other one
		if r.saved.IPs, err = netns.Addresses(r.netns); err != nil {
			r.netns.Close()
			return nil, err
		}
	}
	return r, nil
}

// awaitPod waits for the object of the pod: the runtime may be quicker than the agent's source.
func (a *Agent) awaitPod(ctx context.Context, request pluginapi.Request) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, podPatience)
	defer cancel()
	if a.WaitSynced(ctx) != nil {
		return nil, errors.New("the agent does not know the cluster's objects yet")
	}
	a.waiting.Add(1)
	defer a.waiting.Add(-1)
	for {
		a.mu.Lock()
		pod, ok := a.pods[types.NamespacedName{Namespace: request.PodNamespace, Name: request.PodName}]
		_, namespaceKnown := a.namespaces[request.PodNamespace]
		changed := a.arrived
		a.mu.Unlock()
		if ok && namespaceKnown && (request.PodUID == "" || string(pod.UID) == request.PodUID) {
			return pod, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("pod %s/%s (uid %s) or its namespace is not known to the agent", request.PodNamespace, request.PodName, request.PodUID)
		}
	}
}

// remember makes r the pod's record, in place of one that it had.
func (a *Agent) remember(r *record) error {
	a.mu.Lock()
	old := a.records[r.saved.UID]
	a.records[r.saved.UID] = r
	a.mu.Unlock()
	if old != nil {
		a.drop(old)
	}
	return a.save()
}

// forget takes r out, unless another one has taken its place. The record is locked.
func (a *Agent) forget(r *record) {
	a.mu.Lock()
	if a.records[r.saved.UID] == r {
		delete(a.records, r.saved.UID)
		delete(a.older, r.saved.UID)
	}
	a.mu.Unlock()
	a.release(r)
	if err := a.save(); err != nil {
		a.cfg.Log.Error("the node's pods are not saved", "error", err)
	}
}

// release lets go of what r holds. The proxy is told first: until then, its snapshot has the network namespace. The record is
// locked.
func (a *Agent) release(r *record) {
	if err := a.cfg.Proxy.Del(r.saved.UID); err != nil {
		a.cfg.Log.Warn("ztunnel was not told that a pod is gone", "uid", r.saved.UID, "error", err)
	}
	if err := a.changeHost(HostRules.Remove, r); err != nil {
		a.cfg.Log.Warn("address of a pod that is gone stays in the node's set", "uid", r.saved.UID, "error", err)
	}
	a.forgetEarly(r)
	r.netns.Close()
}

// drop lets go of a record that another one has replaced, before that one is enrolled.
func (a *Agent) drop(r *record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.removed {
		r.removed = true
		a.release(r)
	}
}

// del lets a pod go whose network is being taken away.
func (a *Agent) del(request pluginapi.Request) error {
	a.mu.Lock()
	var found *record
	for uid, r := range a.records {
		if uid == request.PodUID || request.PodUID == "" && r.saved.Container == request.ContainerID {
			found = r
		}
	}
	a.mu.Unlock()
	if found == nil || request.ContainerID != "" && found.saved.Container != "" && found.saved.Container != request.ContainerID {
		return nil // not ours, or another sandbox of the same pod
	}
	if found.saved.Container == "" && isAnother(request.Netns, found.saved.Identity) {
		return nil // found by its process, so its sandbox has no name
	}
	found.mu.Lock()
	defer found.mu.Unlock()
	if !found.removed {
		found.removed = true
		a.forget(found)
	}
	return nil
}

func (a *Agent) save() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]savedPod, 0, len(a.records))
	for uid, r := range a.records {
		p := r.saved
		p.Older = a.older[uid]
		switch {
		case r.early.Load():
			p.Backend = a.cfg.Backend.EarlyName
		case !r.foreign.Load():
			p.Backend = a.cfg.Backend.Name
		}
		list = append(list, p)
	}
	return save(a.cfg.StateFile, list)
}

// isAnother tells whether there is a network namespace at path that is not the one of this identity.
func isAnother(path string, identity netns.ID) bool {
	file, err := netns.Open(path)
	if err != nil {
		return false // gone already
	}
	defer file.Close()
	id, err := netns.Identify(file)
	return err == nil && id != identity
}
