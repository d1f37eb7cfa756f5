package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
)

// Call sends a request of the proxy's own to a cluster, over the same connections as those of clients, and reads its answer away.
// The error says what kept it from being done; ctx must end.
func (s *Server) Call(ctx context.Context, cluster string, head *httpmsg.Head, body []byte) error {
	c := s.current.Load().clusters[cluster]
	if c == nil {
		return fmt.Errorf("there is no cluster %q", cluster)
	}
	host := c.Pick(&upstream.Choice{Rand: s.deps.Rand})
	if host == nil {
		return fmt.Errorf("cluster %q has no healthy host", cluster)
	}
	var refused error
	err := converse(ctx, c, host, head, body, func(response *httpmsg.Head, stream *upstream.Stream) error {
		err := discard(stream)
		refused = refusal(response, stream.Trailer(), isGRPC(head))
		return err
	})
	if err = cmp.Or(err, refused); err != nil {
		return fmt.Errorf("%s of cluster %q: %w", host.Address(), cluster, err)
	}
	return nil
}

// converse sends a request of the proxy's own to a host, and has its answer read.
func converse(ctx context.Context, c *upstream.Cluster, host *upstream.Host, head *httpmsg.Head, body []byte, read func(*httpmsg.Head, *upstream.Stream) error) error {
	failed := func(err error) error {
		if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			c.Failed(host, ctx.Err() != nil)
		}
		return err
	}
	var stream upstream.Stream
	if err := host.Open(ctx, head, len(body) == 0, head.Version, &stream); err != nil {
		return failed(err)
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, stream.Cancel)
	defer stop()
	if len(body) > 0 {
		// An answer may come before all of the request was sent, so errors are the answer's to tell.
		if _, err := stream.Write(body); err == nil {
			_ = stream.Finish(nil)
		}
	}
	response, err := stream.Response(ctx, nil)
	if err != nil {
		return failed(fmt.Errorf("the answer: %w", err))
	}
	c.Answered(host, response.Status)
	if err := read(response, &stream); err != nil {
		return failed(fmt.Errorf("the answer: %w", err))
	}
	return nil
}

// discard reads an answer away, so that its connection can be used again.
func discard(stream *upstream.Stream) error {
	buf := netx.Pool.Get(netx.MediumBuffer)
	defer func() { netx.Pool.Put(buf) }()
	for !stream.Ended() {
		if _, err := stream.Read(buf); err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return err
		}
	}
	return nil
}

// refusal is what an answer says against a request; nil when it was taken.
func refusal(response *httpmsg.Head, trailer *httpmsg.Header, grpc bool) error {
	if response.Status/100 != 2 {
		return errors.New("HTTP status " + strconv.Itoa(response.Status))
	}
	if !grpc {
		return nil
	}
	if status := grpcStatus(&response.Header, trailer); status != 0 {
		message := response.Header.Value("grpc-message")
		if trailer != nil && message == "" {
			message = trailer.Value("grpc-message")
		}
		return fmt.Errorf("gRPC status %d %s", status, message)
	}
	return nil
}

func isGRPC(head *httpmsg.Head) bool { return head.Header.Value("content-type") == "application/grpc" }
