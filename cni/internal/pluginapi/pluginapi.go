// Package pluginapi is what the CNI plugin and the node agent say to each other: JSON over HTTP on a Unix socket.
package pluginapi

// Paths of the requests.
const (
	PathAdd = "/cmdadd"
	PathDel = "/cmddel"
)

// Request tells of a pod whose network was made, or is being taken away.
type Request struct {
	Netns        string   `json:"Netns"`
	Ifname       string   `json:"Ifname"`
	IPs          []string `json:"IPs,omitempty"`
	ContainerID  string   `json:"ContainerID"`
	PodName      string   `json:"PodName"`
	PodNamespace string   `json:"PodNamespace"`
	PodUID       string   `json:"PodUID,omitempty"`
}

// Answer to an ADD.
type Answer struct {
	Enrolled bool `json:"Enrolled"`
}
