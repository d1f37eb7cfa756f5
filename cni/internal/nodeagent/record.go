package nodeagent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/cni/internal/sockets"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

// record is a pod of this node that has a network.
type record struct {
	// immutable
	saved savedPod
	netns *os.File

	// foreign is set while rules of another back end may be in place.
	foreign atomic.Bool
	// early is set while the redirection is that of the back end of pods that are enrolled before they start.
	early atomic.Bool

	mu       sync.Mutex // held while the pod is being changed; guards what follows
	removed  bool       // the pod is gone
	served   bool       // the proxy has taken the pod
	enrolled bool       // the redirection is in place as well
	planned  plan.Pod   // what the rules in place were planned for
	marked   string     // the annotation that was written last
	markedAt time.Time
	failure  string // why the last attempt failed
	failures int    // how many attempts have failed like that, one after the other
	looked   bool   // connections older than the enrolment have been listed
	// cutFailed is set when it was said that older connections cannot be cut.
	cutFailed bool
	// orphanSince is when the pod's object was first seen to be gone.
	orphanSince time.Time
}

// markedLately tells whether the annotation has been written so lately that the source may not know.
func (r *record) markedLately() bool { return time.Since(r.markedAt) < echo }

// savedPod is what survives a restart of the agent.
type savedPod struct {
	UID       string       `json:"uid"`
	Name      string       `json:"name"`
	Namespace string       `json:"namespace"`
	Container string       `json:"containerID"`
	Netns     string       `json:"netns"`
	Identity  netns.ID     `json:"netnsID"`
	IPs       []netip.Addr `json:"ips"`
	// Backend is the name of the one that made the rules.
	Backend string `json:"backend,omitempty"`
	// Older is only set in what is saved: see Agent.older.
	Older []sockets.Connection `json:"olderConnections,omitempty"`
}

func newRecord(saved savedPod) (*record, error) {
	file, err := netns.Open(saved.Netns)
	if err != nil {
		return nil, err
	}
	id, err := netns.Identify(file)
	if err != nil {
		file.Close()
		return nil, err
	}
	if saved.Identity != (netns.ID{}) && saved.Identity != id {
		file.Close()
		return nil, fmt.Errorf("network namespace %s is another one now", saved.Netns)
	}
	saved.Identity = id
	return &record{saved: saved, netns: file}, nil
}

// loadSaved reads what an earlier agent knew; nothing is no error.
func loadSaved(path string) ([]savedPod, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the node's pods: %w", err)
	}
	var list []savedPod
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("read the node's pods from %s: %w", path, err)
	}
	return list, nil
}

// save replaces the file by one that is complete.
func save(path string, list []savedPod) error {
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("save the node's pods: %w", err)
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("save the node's pods: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("save the node's pods: %w", err)
	}
	return nil
}
