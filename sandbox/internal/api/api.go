// Package api is what the sandbox's supervisor and its clients say to each other: HTTP on a Unix socket, in JSON. Commands
// and connections take the socket over after their request; frame.go is what they then speak.
package api

import (
	"net/http"
	"time"
)

// Socket is the API's file in the state directory's subdirectory Dir.
const (
	Dir    = "api"
	Socket = "api.sock"
)

// Profiles of what runs besides the user's own pods.
const (
	ProfileAmbient = "ambient"
	ProfileDemo    = "demo"
	ProfileNone    = "none"
)

// Result says what became of one object.
type Result struct {
	// Object is "kind.group/name", Outcome created, configured, unchanged, deleted, or failed.
	Object    string `json:"object"`
	Namespace string `json:"namespace,omitempty"`
	Outcome   string `json:"outcome"`
	Error     string `json:"error,omitempty"`
}

// Status of a sandbox.
type Status struct {
	Ready    bool         `json:"ready"`
	Nodes    []NodeStatus `json:"nodes"`
	Pods     []PodStatus  `json:"pods"`
	Services []Service    `json:"services"`
	// Problems are what keeps objects from being in force.
	Problems  []string `json:"problems"`
	Published []string `json:"published,omitempty"`
}

// NodeStatus is one node.
type NodeStatus struct {
	Name string   `json:"name"`
	IPs  []string `json:"ips"`
}

// PodStatus is one pod.
type PodStatus struct {
	Namespace   string    `json:"namespace"`
	Name        string    `json:"name"`
	Node        string    `json:"node"`
	Phase       string    `json:"phase"`
	Reason      string    `json:"reason,omitempty"`
	Message     string    `json:"message,omitempty"`
	IPs         []string  `json:"ips"`
	Ready       bool      `json:"ready"`
	Restarts    int       `json:"restarts"`
	Redirection string    `json:"redirection,omitempty"` // "enabled" for a pod in the mesh
	Terminating bool      `json:"terminating,omitempty"`
	Created     time.Time `json:"created"`
	// NetNS is the pod's pin in the supervisor's file system; empty without a network of its own.
	NetNS string `json:"netns,omitempty"`
}

// Service is one Service.
type Service struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Type      string   `json:"type"`
	IPs       []string `json:"ips"`
	Ports     []string `json:"ports"`
}

// Exec asks for a command in a pod.
type Exec struct {
	Namespace string   `json:"namespace"`
	Pod       string   `json:"pod"`
	Container string   `json:"container,omitempty"`
	Argv      []string `json:"argv"`
	Stdin     bool     `json:"stdin,omitempty"`
}

// Exit is how a command ended.
type Exit struct {
	Code  int    `json:"code"`
	Error string `json:"error,omitempty"`
}

// Protocol is the name under which a connection is taken over.
const Protocol = "sandbox"

// IsUpgrade tells whether a request asks for the connection.
func IsUpgrade(r *http.Request) bool { return r.Header.Get("Upgrade") == Protocol }
