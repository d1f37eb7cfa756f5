package delta

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// FuzzSubscription plays any sequence of changes, requests and connections between a Table, a Subscription and a Client, and
// checks at its end that the client has what it is subscribed to, in its newest version, and no more.
func FuzzSubscription(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7}, false)
	f.Add([]byte{0x10, 0x50, 0x90, 0x33, 0x71, 0x21, 0xff, 0x46}, true)
	f.Add([]byte("publish, remove, demand, reconnect and advance in some order"), true)
	f.Fuzz(func(t *testing.T, script []byte, onDemand bool) {
		w := newWorld(t, onDemand)
		for _, b := range script {
			w.act(b>>5, int(b&0x1f))
		}
		w.settle()
		w.check()
	})
}

// world is one server and one client with a perfect network between them.
type world struct {
	t        *testing.T
	onDemand bool
	version  int
	table    *Table
	sub      *Subscription
	client   *Client
	has      map[string]string // what the client's handler has
	wants    map[string]bool   // what has been demanded
}

func newWorld(t *testing.T, onDemand bool) *world {
	w := &world{t: t, onDemand: onDemand, table: NewTable(), has: map[string]string{}, wants: map[string]bool{}}
	w.client = NewClient(nil, Watch{TypeURL: testType, OnDemand: onDemand})
	w.connect()
	return w
}

func (w *world) act(what byte, n int) {
	name := fmt.Sprintf("r%d", n%8)
	switch what {
	case 0, 1: // a resource, by another version; some are members of others
		w.version++
		r := Resource{Name: name, Version: fmt.Sprint(w.version), Any: &anypb.Any{TypeUrl: testType}, Aliases: []string{"/" + name}}
		if n%8 > 3 {
			r.Groups = []string{fmt.Sprintf("r%d", n/8)}
		}
		w.table.Publish([]Resource{r}, nil)
	case 2:
		w.table.Publish(nil, []string{name})
	case 3, 4:
		w.deliver(w.sub.Advance(w.table))
	case 5:
		if n > 15 {
			name = "/" + name
		}
		if r, _, err := w.client.Demand(testType, name); (err == nil) != w.onDemand {
			w.t.Fatal(err)
		} else if r != nil {
			w.wants[name] = true
			w.deliver(w.sub.Step(w.table, r))
		}
	case 6:
		w.client.Closed(Closed(n % 3))
		w.connect()
	case 7:
		w.table.Trim(w.sub.At())
	}
}

func (w *world) connect() {
	w.sub = NewSubscription(testType)
	clear(w.wants) // but for what the client names again: it does not name what has been removed since
	for _, r := range w.client.Connected() {
		for name := range r.GetInitialResourceVersions() {
			w.wants[name] = true
		}
		w.deliver(w.sub.Step(w.table, proto.Clone(r).(*discovery.DeltaDiscoveryRequest)))
	}
}

func (w *world) deliver(out Output) {
	if out.Stale || out.Nack != nil {
		w.t.Fatal("stale answer, or a NACK of nothing bad")
	}
	if out.Send == nil {
		return
	}
	var r discovery.DeltaDiscoveryResponse
	if err := proto.Unmarshal(AppendNonce(slices.Clone(out.Send.Wire(testType, "")), out.Send.Nonce), &r); err != nil {
		w.t.Fatal(err)
	}
	d, err := w.client.Received(&r)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, name := range d.Removed {
		delete(w.has, name)
	}
	for _, u := range d.Updated {
		w.has[u.Name] = u.Version
	}
	w.deliver(w.sub.Step(w.table, w.client.Apply(d, nil).Request))
}

func (w *world) settle() { w.deliver(w.sub.Advance(w.table)) }

func (w *world) check() {
	want := map[string]string{}
	for _, e := range w.table.All() {
		if _, has := w.has[e.Name]; !w.onDemand || has {
			want[e.Name] = e.Version // on demand, whatever it has is to be the newest
		}
	}
	if w.onDemand {
		for key := range w.wants {
			if !w.table.has(key) {
				continue
			}
			for _, e := range w.table.Lookup(key) {
				want[e.Name] = e.Version
			}
		}
	}
	if !maps.Equal(w.has, want) {
		w.t.Errorf("client has %v, want %v", w.has, want)
	}
}

// FuzzClient feeds a Client responses of any content: it must answer each, and never claim what it has not accepted.
func FuzzClient(f *testing.F) {
	valid, _ := proto.Marshal(&discovery.DeltaDiscoveryResponse{
		TypeUrl: testType, Nonce: "1", RemovedResources: []string{"b"},
		Resources: []*discovery.Resource{{Name: "a", Version: "1", Aliases: []string{"x"}, Resource: &anypb.Any{TypeUrl: testType}}},
	})
	f.Add(valid, "a")
	f.Fuzz(func(t *testing.T, wire []byte, reject string) {
		var r discovery.DeltaDiscoveryResponse
		if proto.Unmarshal(wire, &r) != nil {
			return
		}
		c := NewClient(nil, Watch{TypeURL: testType, OnDemand: true})
		c.Connected()
		d, err := c.Received(&r)
		if err != nil {
			return
		}
		var rejected []Rejected
		if reject != "" {
			rejected = []Rejected{{reject, "fuzz"}}
		}
		out := c.Apply(d, rejected)
		if out.Request.GetResponseNonce() != r.GetNonce() {
			t.Errorf("answered nonce %q, not %q", out.Request.GetResponseNonce(), r.GetNonce())
		}
		for name := range c.Connected()[0].GetInitialResourceVersions() {
			if name == reject {
				t.Errorf("claims to have %q, which it rejected", name)
			}
		}
	})
}
