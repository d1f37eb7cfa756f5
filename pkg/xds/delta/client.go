package delta

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
)

// Watch is one type a client subscribes to.
type Watch struct {
	TypeURL string
	// OnDemand subscribes to nothing at first; resources are asked for one by one (Demand).
	OnDemand bool
}

// Rejected is a resource that could not be used.
type Rejected struct{ Name, Reason string }

// Client is the state of a client: what it has, over all connections, and where the present one stands.
type Client struct {
	node    *corev3.Node
	types   map[string]*watched
	order   []string
	backoff backoff
	useful  bool // the connection has brought a response
	synced  bool
}

type watched struct {
	Watch
	inUse    map[string]inUse    // by name
	aliases  map[string]string   // alias → name, of resources in use; on demand
	pending  map[string]struct{} // asked for and not answered; on demand
	answered bool                // a response has come, ever
}

type inUse struct {
	version string
	aliases []string
}

// Delivery is the content of a response, to be applied before it is answered.
type Delivery struct {
	TypeURL string
	Nonce   string
	Updated []Resource
	Removed []string
	invalid []Rejected
}

// Applied is what came of a Delivery.
type Applied struct {
	Request *discovery.DeltaDiscoveryRequest // ACK or NACK, to be sent
	Woken   []string                         // demanded names that are now answered
	Synced  bool                             // every wildcard type has now been answered once; true only once
}

// NewClient returns the state of a client that has nothing. Requests are made in the order of watches.
func NewClient(node *corev3.Node, watches ...Watch) *Client {
	c := &Client{node: node, types: map[string]*watched{}}
	for _, w := range watches {
		c.order = append(c.order, w.TypeURL)
		c.types[w.TypeURL] = &watched{Watch: w, inUse: map[string]inUse{}, aliases: map[string]string{}, pending: map[string]struct{}{}}
	}
	return c
}

// Connected returns the requests that open a stream: one per type, each with the node, and with the versions of what the
// client has.
func (c *Client) Connected() []*discovery.DeltaDiscoveryRequest {
	c.useful = false
	requests := make([]*discovery.DeltaDiscoveryRequest, 0, len(c.order))
	for _, url := range c.order {
		w := c.types[url]
		r := &discovery.DeltaDiscoveryRequest{Node: c.node, TypeUrl: url}
		if len(w.inUse)+len(w.pending) > 0 {
			r.InitialResourceVersions = make(map[string]string, len(w.inUse)+len(w.pending))
			for name, u := range w.inUse {
				r.InitialResourceVersions[name] = u.version
			}
			for name := range w.pending {
				r.InitialResourceVersions[name] = ""
			}
		}
		if w.OnDemand {
			r.ResourceNamesSubscribe = []string{Wildcard}
			r.ResourceNamesUnsubscribe = []string{Wildcard}
		}
		requests = append(requests, r)
	}
	return requests
}

// Closed says that the connection has ended, or could not be made, and returns how long to wait before the next one.
// All resources stay in use.
func (c *Client) Closed(how Closed) time.Duration { return c.backoff.after(how, c.useful) }

// Demand asks for a resource on demand. It returns the request to send, if one is to be sent now, and whether the name is
// known already. Without a connection the request is not needed: Connected will carry the name.
func (c *Client) Demand(typeURL, name string) (send *discovery.DeltaDiscoveryRequest, known bool, err error) {
	w := c.types[typeURL]
	if w == nil || !w.OnDemand {
		return nil, false, fmt.Errorf("demand %s: type %s is not watched on demand", name, typeURL)
	}
	if w.has(name) {
		return nil, true, nil
	}
	if _, waits := w.pending[name]; waits {
		return nil, false, nil
	}
	w.pending[name] = struct{}{}
	return &discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: []string{name}}, false, nil
}

func (w *watched) has(name string) bool {
	if _, ok := w.inUse[name]; ok {
		return true
	}
	_, ok := w.aliases[name]
	return ok
}

// ErrUnknownType is returned for a response of a type that is not watched.
var ErrUnknownType = errors.New("response of a type that is not subscribed")

// Received takes a response and returns what to apply. It must be followed by Apply before the next response.
func (c *Client) Received(r *discovery.DeltaDiscoveryResponse) (*Delivery, error) {
	if c.types[r.GetTypeUrl()] == nil {
		return nil, fmt.Errorf("%w: %q", ErrUnknownType, r.GetTypeUrl())
	}
	c.useful = true
	d := &Delivery{TypeURL: r.GetTypeUrl(), Nonce: r.GetNonce(), Removed: r.GetRemovedResources()}
	for _, res := range r.GetResources() {
		switch {
		case res.GetName() == "":
			d.invalid = append(d.invalid, Rejected{"?", "resource without a name"})
		case res.GetResource() == nil:
			d.invalid = append(d.invalid, Rejected{res.GetName(), "resource without content"})
		case res.GetResource().GetTypeUrl() != r.GetTypeUrl():
			d.invalid = append(d.invalid, Rejected{res.GetName(), fmt.Sprintf("content is of type %q", res.GetResource().GetTypeUrl())})
		default:
			d.Updated = append(d.Updated, Resource{Name: res.GetName(), Version: res.GetVersion(), Any: res.GetResource(), Aliases: res.GetAliases()})
		}
	}
	return d, nil
}

// Apply takes what came of a delivery and returns the answer. What has been rejected does not count as being in use, so the
// server sends it again on the next connection; the rest of the response stands.
func (c *Client) Apply(d *Delivery, rejected []Rejected) Applied {
	w := c.types[d.TypeURL]
	rejected = append(slices.Clone(d.invalid), rejected...)
	bad := map[string]bool{}
	for _, r := range rejected {
		bad[r.Name] = true
	}
	var out Applied
	for _, name := range d.Removed {
		w.forget(name)
		out.Woken = w.wake(name, out.Woken)
	}
	for _, r := range d.Updated {
		w.forget(r.Name)
		out.Woken = w.wake(r.Name, out.Woken)
		for _, a := range r.Aliases {
			out.Woken = w.wake(a, out.Woken)
		}
		if bad[r.Name] {
			continue
		}
		w.inUse[r.Name] = inUse{r.Version, r.Aliases}
		for _, a := range r.Aliases {
			w.aliases[a] = r.Name
		}
	}
	w.answered = true
	out.Synced = c.justSynced()
	out.Request = &discovery.DeltaDiscoveryRequest{TypeUrl: d.TypeURL, ResponseNonce: d.Nonce}
	if len(rejected) > 0 {
		out.Request.ErrorDetail = &statuspb.Status{Message: nackMessage(rejected)}
	}
	return out
}

func nackMessage(rejected []Rejected) string {
	parts := make([]string, len(rejected))
	for i, r := range rejected {
		parts[i] = r.Name + ": " + r.Reason
	}
	return strings.Join(parts, "; ")
}

func (c *Client) justSynced() bool {
	if c.synced {
		return false
	}
	for _, w := range c.types {
		if !w.OnDemand && !w.answered {
			return false
		}
	}
	c.synced = true
	return true
}

func (w *watched) forget(name string) {
	for _, a := range w.inUse[name].aliases {
		if w.aliases[a] == name {
			delete(w.aliases, a)
		}
	}
	delete(w.inUse, name)
}

func (w *watched) wake(name string, woken []string) []string {
	if _, waits := w.pending[name]; !waits {
		return woken
	}
	delete(w.pending, name)
	return append(woken, name)
}
