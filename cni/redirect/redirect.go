// Package redirect joins what the back ends of redirection have in common: the plan (cni/redirect/plan) is the same, and each of
// them puts it into a pod's network namespace in its own way.
package redirect

import (
	"errors"
	"os"

	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
)

// Chosen is the back end of a node, under its name, and those whose rules may be left from before.
type Chosen struct {
	Backend
	Name   string
	Before []Backend
	// Early, if not nil, is the one of pods that are enrolled before they start; what it cannot do is Backend's. EarlyName is its name.
	Early     Early
	EarlyName string
}

// Early is a back end that keeps something outside of network namespaces.
type Early interface {
	Backend
	// Forget takes what is kept of a namespace that is going away.
	Forget(ns *os.File) error
	// Close lets go of what the process itself has; the redirection goes on.
	Close()
}

// Why an Early back end does not serve a pod.
var (
	// ErrNoListener means that the proxy has no listener in the pod that can take what is redirected.
	ErrNoListener = errors.New("no transparent listener of the proxy")
	// ErrUnsuitable means that the pod's network is none that the back end knows how to serve.
	ErrUnsuitable = errors.New("the pod's network does not suit the back end")
)

// Reason is one word for why a back end does not serve a pod.
func Reason(err error) string {
	switch {
	case errors.Is(err, ErrNoListener):
		return "listener"
	case errors.Is(err, ErrUnsuitable):
		return "network"
	}
	return "kernel"
}

// Backend applies plans. All methods are safe for concurrent use on different namespaces; the caller keeps ns open.
type Backend interface {
	// Apply makes ns look like rules, whatever it looked like before; open connections stay. Twice is the same as once.
	Apply(ns *os.File, rules plan.Rules) error
	// Remove stops the redirection of new connections. Those that are open go on until they end.
	Remove(ns *os.File) error
	// Inspect compares the kernel with rules and returns one sentence per difference; none means in order.
	Inspect(ns *os.File, rules plan.Rules) ([]string, error)
	// Purge removes every trace; redirected connections that are still open are cut.
	Purge(ns *os.File, rules plan.Rules) error
	// Clear takes this back end's own rules away once another one's are in place; open connections stay.
	Clear(ns *os.File) error
}

// Names of the back ends.
const (
	NFT      = "nft"
	IPTables = "iptables"
	SKLookup = "sklookup"
)

// Switched is a back end that first serves where others have been before: what they left goes once its own rules are in place.
type Switched struct {
	Backend
	Before []Backend
}

// Apply implements Backend.
func (s Switched) Apply(ns *os.File, rules plan.Rules) error {
	if err := s.Backend.Apply(ns, rules); err != nil {
		return err
	}
	if k, ok := s.Backend.(keeper); ok && len(s.Before) > 0 {
		if err := k.Keep(ns); err != nil {
			return err
		}
	}
	for _, old := range s.Before {
		if err := old.Clear(ns); err != nil {
			return err
		}
	}
	return nil
}

// keeper is a back end without rules of its own in the tables of which connections are translated.
type keeper interface {
	// Keep lets the connections live on that others have redirected and are about to clear.
	Keep(ns *os.File) error
}

// Remove implements Backend.
func (s Switched) Remove(ns *os.File) error {
	for _, old := range s.Before {
		if err := old.Remove(ns); err != nil {
			return err
		}
	}
	return s.Backend.Remove(ns)
}

// Purge implements Backend.
func (s Switched) Purge(ns *os.File, rules plan.Rules) error {
	for _, old := range s.Before {
		if err := old.Clear(ns); err != nil {
			return err
		}
	}
	return s.Backend.Purge(ns, rules)
}
