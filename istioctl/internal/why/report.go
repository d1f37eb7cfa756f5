package why

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// Question is what is asked: a connection, or a request if Method is set.
type Question struct {
	// From is pod, pod.namespace, deploy/x, svc/x, gateway/x, or outside.
	From string `json:"from"`
	// To is a service, a pod, an address, a host, or gateway/x; with :port unless there is but one.
	To     string `json:"to"`
	Method string `json:"method,omitempty"`
	Path   string `json:"path,omitempty"`
	// Headers are name: value; Host or :authority is whom the request is for.
	Headers []string `json:"headers,omitempty"`
	// SNI is the name that a client of TLS asks for.
	SNI string `json:"sni,omitempty"`
	// Identity stands for that of the source: spiffe://…, or namespace/account.
	Identity string `json:"identity,omitempty"`
	// Namespace of names that have none.
	Namespace string `json:"namespace,omitempty"`
}

// The outcomes.
const (
	Allowed = "allowed"
	Denied  = "denied"
	Broken  = "broken"
	// Unknown is what a sidecar decides.
	Unknown = "unknown"
)

// Code is the exit code of an outcome: what is not known counts as what does not work.
func Code(outcome string) int {
	switch outcome {
	case Allowed:
		return 0
	case Denied:
		return 1
	}
	return 2
}

// Report is the answer.
type Report struct {
	Question Question `json:"question"`
	// Hops in their order; where requests part, those of the ones that fare worst.
	Hops    []*Hop  `json:"hops"`
	Verdict Verdict `json:"verdict"`
	// Warnings are about what is on the way, or should be, and does not do what its author may think.
	Warnings []Finding `json:"warnings,omitempty"`
	Notes    []string  `json:"notes,omitempty"`
	// Proxies are those on the way that run, with how far they have come; Probe is what really happened.
	Proxies []ProxyState `json:"proxies,omitempty"`
	Probe   *Probe       `json:"probe,omitempty"`

	// For comparing with what runs.
	source  *corev1.Pod
	service *l4.Service
	ends    []*l4.Workload
	port    uint16
	address string // instead of a name, where clients have none for it
	http    bool
}

// Hop is a proxy on the way, or the application at its end.
type Hop struct {
	Title string `json:"title"`
	Facts []Fact `json:"facts"`
	// Next is how it goes on.
	Next string `json:"next,omitempty"`

	proxy passed
	local *l4.Workload // whose ztunnel it is, at its end
}

// Fact is something that matters at a hop.
type Fact struct {
	Name string `json:"name"`
	Text string `json:"text"`
	Ref  *Ref   `json:"ref,omitempty"`
}

// Finding is something that somebody should look at.
type Finding struct {
	Text   string `json:"text"`
	Ref    *Ref   `json:"ref,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// Verdict is the outcome and its reason.
type Verdict struct {
	Outcome string `json:"outcome"`
	// Share is how many percent of the requests it is about; 0 is all of them.
	Share int `json:"share,omitempty"`
	// Cause is a sentence; Refs are the objects that it speaks of.
	Cause  string `json:"cause"`
	Refs   []*Ref `json:"refs,omitempty"`
	Remedy string `json:"remedy,omitempty"`
	// Status is what a client is answered by a proxy; 0 when the application answers, or nobody.
	Status int `json:"status,omitempty"`
	// Reached are the addresses at which it ends; for comparisons.
	Reached []string `json:"reached,omitempty"`

	// unexplained is a cause that says no more than that it is so.
	unexplained bool
}

// ProxyState is how far a running proxy has come.
type ProxyState struct {
	Proxy string `json:"proxy"`
	State string `json:"state"`
	Stale bool   `json:"stale,omitempty"`
	// Differs says what it has that it should not have, or the other way round.
	Differs []string `json:"differs,omitempty"`
}

// Probe is what happened to the real thing.
type Probe struct {
	Command string `json:"command,omitempty"`
	Answer  string `json:"answer,omitempty"`
	// Reached is whether the application answered.
	Reached bool `json:"reached"`
	Agrees  bool `json:"agrees"`
	// Why it could not be sent.
	Error string `json:"error,omitempty"`
}

// fork is the hop so far, for one of several ways on.
func (h *Hop) fork() *Hop {
	return &Hop{Title: h.Title, Facts: h.Facts[:len(h.Facts):len(h.Facts)], proxy: h.proxy, local: h.local}
}

func (h *Hop) add(name, text string, ref *Ref) {
	h.Facts = append(h.Facts, Fact{name, text, ref})
}
