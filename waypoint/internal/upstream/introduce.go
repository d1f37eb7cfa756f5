package upstream

import (
	"context"
	"fmt"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/proxyproto"
)

// introduce tells the host of its client, where the cluster says so, before anything else is sent. It closes the connection on failure.
func (h *Host) introduce(ctx context.Context, to *link, v proxyproto.Version) error {
	if v == 0 {
		return nil
	}
	deadline, _ := ctx.Deadline()
	err := to.SetWriteDeadline(deadline)
	if err == nil {
		_, err = to.Write(h.header.Append(nil, v))
	}
	if err == nil {
		err = to.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		to.Close()
		return fmt.Errorf("tell %s of its client: %w", h.describe(), err)
	}
	return nil
}
