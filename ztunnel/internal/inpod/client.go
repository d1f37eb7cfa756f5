package inpod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/api/zds"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/proxy"
)

const (
	firstBackoff = 20 * time.Millisecond
	maxBackoff   = 15 * time.Second
)

// protocolError is a breach of the protocol that both sides cannot agree after: the manager gives up.
type protocolError struct{ reason string }

func (e *protocolError) Error() string { return "failure to process message : " + e.reason }

// Run talks to the agent until ctx ends, connecting anew whenever the connection ends. It fails only when the agent
// breaks the protocol.
func (m *Manager) Run(ctx context.Context) error {
	retrying := make(chan struct{})
	go func() {
		defer close(retrying)
		m.retry(ctx)
	}()
	defer func() { <-retrying }()
	backoff := firstBackoff
	for ctx.Err() == nil {
		c, err := dial(ctx, m.cfg.Socket)
		if err == nil {
			backoff = firstBackoff
			m.cfg.Log.Info("connected to the CNI agent", "socket", m.cfg.Socket)
			err = m.converse(ctx, c)
			c.conn.Close()
		}
		var broken *protocolError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &broken):
			return fmt.Errorf("CNI agent: %w", err)
		case errors.Is(err, io.EOF):
			m.cfg.Log.Info("the CNI agent has closed the connection; pods stay as they are")
		default:
			m.cfg.Log.Warn("no connection to the CNI agent; pods stay as they are", "error", err, "retry_in", backoff)
			pause(ctx, backoff)
			backoff = min(2*backoff, maxBackoff)
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// converse serves one connection until it ends.
func (m *Manager) converse(ctx context.Context, c *channel) error {
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	if err := c.send(&zds.ZdsHello{Version: zds.Version_V1}); err != nil {
		return err
	}
	m.beginSnapshot()
	inSnapshot := true
	for {
		request, file, err := c.receive()
		if err != nil {
			var unreadable *readError
			if errors.As(err, &unreadable) {
				_ = c.send(ack(err)) // the connection ends in any case
			}
			return err
		}
		outcome := m.process(ctx, request, file, &inSnapshot)
		if err := c.send(ack(outcome)); err != nil {
			return err
		}
		var broken *protocolError
		if errors.As(outcome, &broken) {
			return outcome
		}
	}
}

// process applies one request. Its error goes to the agent.
func (m *Manager) process(ctx context.Context, request *zds.WorkloadRequest, file *os.File, inSnapshot *bool) error {
	switch payload := request.GetPayload().(type) {
	case *zds.WorkloadRequest_Add:
		info := payload.Add.GetWorkloadInfo()
		if info == nil {
			file.Close()
			return &protocolError{"add without workload info"}
		}
		return m.add(ctx, payload.Add.GetUid(), proxy.Info{
			Name: info.GetName(), Namespace: info.GetNamespace(), ServiceAccount: info.GetServiceAccount(),
		}, file)
	case *zds.WorkloadRequest_Keep:
		if !*inSnapshot {
			return &protocolError{"keep after the snapshot"}
		}
		return m.keep(payload.Keep.GetUid())
	case *zds.WorkloadRequest_Del:
		m.remove(payload.Del.GetUid()) //nolint:contextcheck // draining outlives the conversation
		return nil
	case *zds.WorkloadRequest_SnapshotSent:
		if !*inSnapshot {
			return &protocolError{"a second end of the snapshot"}
		}
		*inSnapshot = false
		m.endSnapshot() //nolint:contextcheck // draining outlives the conversation
		return nil
	}
	return &protocolError{"unknown payload"}
}

func ack(err error) *zds.WorkloadResponse {
	reason := ""
	if err != nil {
		reason = err.Error()
		// The other side reads packets of a fixed size, of which the field's head takes a little.
		if len(reason) > maxPacket-16 {
			reason = reason[:maxPacket-16]
		}
	}
	return &zds.WorkloadResponse{Payload: &zds.WorkloadResponse_Ack{Ack: &zds.Ack{Error: reason}}}
}
