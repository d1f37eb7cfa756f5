package proxy

import (
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
	if err := s.call(ctx, c, host, head, body); err != nil {
		return fmt.Errorf("%s of cluster %q: %w", host.Address(), cluster, err)
	}
	return nil
}

func (s *Server) call(ctx context.Context, c *upstream.Cluster, host *upstream.Host, head *httpmsg.Head, body []byte) error {
	var stream upstream.Stream
	if err := host.Open(ctx, head, len(body) == 0, head.Version, &stream); err != nil {
		c.Failed(host, false)
		return err
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, stream.Cancel)
	defer stop()
	if len(body) > 0 {
		if _, err := stream.Write(body); err != nil {
			return err
		}
		if err := stream.Finish(nil); err != nil {
			return err
		}
	}
	response, err := stream.Response(ctx, nil)
	if err != nil {
		c.Failed(host, false)
		return err
	}
	c.Answered(host, response.Status)
	if response.Status/100 != 2 {
		return errors.New("HTTP status " + strconv.Itoa(response.Status))
	}
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
	if !isGRPC(head) {
		return nil
	}
	trailer := stream.Trailer()
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
