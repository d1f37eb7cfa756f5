package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// consumer is a pod that the control plane knows, with what it gets and what it has acknowledged.
type consumer struct {
	content  resources
	released chan struct{} // closed when it may have its content
	began    chan struct{} // closed when it has asked for it

	mu      sync.Mutex // guards the rest, and sending
	stream  discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	nonces  int
	sent    map[string]*discoveryv3.DeltaDiscoveryResponse // not acknowledged yet, by nonce
	has     resources                                      // acknowledged
	changed chan struct{}                                  // closed when has changes
}

func newConsumer(content resources) *consumer {
	return &consumer{
		content: content, released: make(chan struct{}), began: make(chan struct{}),
		sent: map[string]*discoveryv3.DeltaDiscoveryResponse{}, has: resources{}, changed: make(chan struct{}),
	}
}

// begin notes the stream by which the pod asks, and waits until it may have its content.
func (c *consumer) begin(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	c.mu.Lock()
	first := c.stream == nil
	c.stream = stream
	c.mu.Unlock()
	if first {
		close(c.began)
	}
	select {
	case <-c.released:
		return nil
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// connected waits until the pod has asked.
func (c *consumer) connected(ctx context.Context) error {
	select {
	case <-c.began:
		return nil
	case <-ctx.Done():
		return errors.New("the proxy does not ask for its configuration")
	}
}

// release lets the pod have its content.
func (c *consumer) release() { close(c.released) }

// send sends resources of one type.
func (c *consumer) send(typeURL string, content map[string]*anypb.Any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nonces++
	response := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: typeURL, Nonce: fmt.Sprint(c.nonces)}
	for name, resource := range content {
		response.Resources = append(response.Resources, &discoveryv3.Resource{Name: name, Version: response.Nonce, Resource: resource})
	}
	c.sent[response.Nonce] = response
	return c.stream.Send(response)
}

// push sends what has changed.
func (c *consumer) push(r resources) error {
	for typeURL, content := range r {
		if err := c.send(typeURL, content); err != nil {
			return err
		}
	}
	return nil
}

// answered notes that what was sent with a nonce was taken.
func (c *consumer) answered(nonce string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	response := c.sent[nonce]
	if response == nil {
		return
	}
	delete(c.sent, nonce)
	for _, r := range response.GetResources() {
		if c.has[response.GetTypeUrl()] == nil {
			c.has[response.GetTypeUrl()] = map[string]*anypb.Any{}
		}
		c.has[response.GetTypeUrl()][r.GetName()] = r.GetResource()
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// acknowledged waits until all of the resources were taken.
func (c *consumer) acknowledged(ctx context.Context, want resources) error {
	for {
		c.mu.Lock()
		missing, changed := c.missingLocked(want), c.changed
		c.mu.Unlock()
		if missing == "" {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the proxy does not take %s", missing)
		}
	}
}

func (c *consumer) missingLocked(want resources) string {
	for typeURL, content := range want {
		for name, resource := range content {
			if c.has[typeURL][name] != resource {
				return typeURL + " " + name
			}
		}
	}
	return ""
}
