package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// transport is one stream, as a session uses it. Send and Recv may be called concurrently with each other.
type transport interface {
	Send(*discovery.DeltaDiscoveryRequest) error
	Recv() (response *discovery.DeltaDiscoveryResponse, size int, err error)
	// Close ends the stream; Recv then returns.
	Close()
}

// connector opens a stream that ends with the context.
type connector func(ctx context.Context) (transport, error)

// errConnect marks a connection that never came to be.
var errConnect = errors.New("connect")

// received is what the reading goroutine hands to the session.
type received struct {
	response *discovery.DeltaDiscoveryResponse
	size     int
	err      error
}

// session is one connection, from dialling to its end, whose reason it returns.
func (c *Client) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := c.connect(ctx)
	if err != nil {
		return fmt.Errorf("%w %s: %w", errConnect, c.cfg.Target, err)
	}
	responses := make(chan received)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		read(ctx, conn, responses)
	}()
	defer func() {
		cancel()
		conn.Close()
		<-ended
	}()
	for _, r := range c.begin() {
		if err := conn.Send(r); err != nil {
			return refine(ctx, err, responses)
		}
	}
	defer c.end()
	for {
		var err error
		select {
		case r := <-responses:
			if r.err != nil {
				return r.err
			}
			err = c.handle(conn, r)
		case <-c.send:
			err = c.flush(conn)
		case <-ctx.Done():
			return ctx.Err()
		}
		if err != nil {
			return refine(ctx, err, responses)
		}
	}
}

// refine replaces the error of a Send, which gRPC reports as a bare EOF, by the one that ended the stream.
func refine(ctx context.Context, err error, responses <-chan received) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	for {
		select {
		case r := <-responses:
			if r.err != nil {
				return r.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func read(ctx context.Context, conn transport, out chan<- received) {
	for {
		response, size, err := conn.Recv()
		select {
		case out <- received{response, size, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// begin returns the requests that open a session. What had been demanded meanwhile is among them.
func (c *Client) begin() []*discovery.DeltaDiscoveryRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.online = true
	c.outbox = nil
	return c.openingLocked(c.state.Connected())
}

func (c *Client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.online = false
	c.outbox = nil
}

// flush sends the demands that have queued up.
func (c *Client) flush(conn transport) error {
	c.mu.Lock()
	requests := c.outbox
	c.outbox = nil
	c.mu.Unlock()
	for _, r := range requests {
		if err := conn.Send(r); err != nil {
			return err
		}
	}
	return nil
}

// handle applies a response and answers it.
func (c *Client) handle(conn transport, r received) error {
	url := r.response.GetTypeUrl()
	c.mu.Lock()
	d, err := c.state.Received(r.response)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.cfg.Metrics.messages.WithLabelValues(url).Inc()
	c.cfg.Metrics.bytes.WithLabelValues(url).Add(float64(r.size))
	rejected := c.handlers[url].Apply(d.Updated, d.Removed)
	for _, bad := range rejected {
		c.cfg.Log.Error("xds resource rejected", "type", url, "name", bad.Name, "reason", bad.Reason)
	}
	c.mu.Lock()
	out := c.state.Apply(d, rejected)
	c.wake(url, out.Woken)
	c.mu.Unlock()
	if out.Synced {
		close(c.synced)
	}
	return conn.Send(out.Request)
}
