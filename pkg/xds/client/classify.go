package client

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
)

// classify maps the end of a session to how soon the next is tried, and to the reason in metrics.
func classify(err error) (delta.Closed, string) {
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return delta.ClosedEOF, "Complete"
	case errors.Is(err, errConnect):
		return delta.ClosedError, "ConnectionError"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return delta.ClosedQuick, "Reconnect"
	}
	s, ok := status.FromError(err)
	if !ok {
		return delta.ClosedError, "Error"
	}
	switch s.Code() {
	case codes.Unknown, codes.Canceled, codes.DeadlineExceeded:
		return delta.ClosedQuick, "Reconnect"
	case codes.Unavailable:
		// gRPC reports a connection that the server drains as an unavailable one, and only the text tells.
		if m := s.Message(); strings.Contains(m, "GOAWAY") || strings.Contains(m, "goaway") || strings.Contains(m, "draining") {
			return delta.ClosedQuick, "Reconnect"
		}
	}
	return delta.ClosedError, "Error"
}
