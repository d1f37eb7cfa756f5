package client

import (
	"context"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

const routeType = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

// A named type is subscribed by name, from within a handler too, and a new connection asks for the same names with the versions
// of what is in use.
func TestNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		routes := &recorder{bad: []string{"c"}}
		var c *Client
		follow := handlerFunc(func(updated []Resource, _ []string) []Rejected {
			for _, u := range updated {
				c.Subscribe(routeType, []string{u.Name}, nil)
			}
			return nil
		})
		c = New(Config{Node: &corev3.Node{Id: "n"}, Types: []Watch{{TypeURL: addressType, Handler: follow}, {TypeURL: routeType, Handler: routes, Named: true}}})
		servers := make(chan *fakeServer, 10)
		c.connect = func(context.Context) (transport, error) { f := newFakeServer(); servers <- f; return f, nil }
		start(t, c)
		f := <-servers
		if r := <-f.requests; r.GetTypeUrl() != addressType {
			t.Errorf("first request: %v", r)
		}
		synctest.Wait()
		if len(f.requests) != 0 {
			t.Errorf("a named type without names was asked for: %v", <-f.requests)
		}
		f.responses <- response(addressType, "1", "a", "b", "c")
		<-c.Synced()
		synctest.Wait()
		if ack := <-f.requests; ack.GetTypeUrl() != addressType || ack.GetResponseNonce() != "1" {
			t.Errorf("ack: %v", ack)
		}
		var asked []string
		for len(f.requests) > 0 {
			r := <-f.requests
			if r.GetTypeUrl() != routeType || len(r.GetResourceNamesUnsubscribe()) != 0 || r.GetResponseNonce() != "" {
				t.Errorf("subscription: %v", r)
			}
			asked = append(asked, r.GetResourceNamesSubscribe()...)
		}
		if !slices.Equal(asked, []string{"a", "b", "c"}) {
			t.Errorf("asked for %v", asked)
		}
		f.responses <- response(routeType, "2", "a", "b", "c")
		synctest.Wait()
		if nack := <-f.requests; nack.GetErrorDetail().GetMessage() != "c: unusable" {
			t.Errorf("nack: %v", nack)
		}
		c.Subscribe(routeType, []string{"a", "d"}, []string{"b", "x"})
		synctest.Wait()
		if r := <-f.requests; !slices.Equal(r.GetResourceNamesSubscribe(), []string{"d"}) || !slices.Equal(r.GetResourceNamesUnsubscribe(), []string{"b"}) {
			t.Errorf("change: %v", r)
		}
		c.Subscribe(routeType, []string{"a"}, nil)
		c.Subscribe(addressType, []string{"a"}, nil)
		synctest.Wait()
		if len(f.requests) != 0 {
			t.Errorf("a change of nothing was sent: %v", <-f.requests)
		}
		f.responses <- io.EOF
		f = <-servers
		<-f.requests
		r := <-f.requests
		if !slices.Equal(r.GetResourceNamesSubscribe(), []string{"a", "c", "d"}) || len(r.GetResourceNamesUnsubscribe()) != 0 || r.GetNode().GetId() != "n" {
			t.Errorf("reconnect: %v", r)
		}
		if v := r.GetInitialResourceVersions(); len(v) != 1 || v["a"] != "v-a" {
			t.Errorf("initial versions: %v", v)
		}
	})
}

type handlerFunc func([]Resource, []string) []Rejected

func (h handlerFunc) Apply(updated []Resource, removed []string) []Rejected {
	return h(updated, removed)
}
