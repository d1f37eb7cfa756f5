package zds

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pkg/api/zds"
)

const (
	// maxPacket is the largest message of either side, in bytes.
	maxPacket = 1024
	// exchangeTimeout bounds a write, and the wait for its answer, unless the Config says otherwise.
	exchangeTimeout = 5 * time.Second
	// glance is how long a liveness check waits for what should not be there.
	glance = time.Millisecond
)

// RefusedError is the proxy's answer that it could not do what was asked. The connection is sound.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "ztunnel: " + e.Reason }

// conn is the connection of one proxy.
type conn struct {
	// immutable
	unix    *net.UnixConn
	timeout time.Duration // bounds a write, and the wait for its answer

	mu sync.Mutex // held from a request to its answer: one is outstanding at a time
}

// hello reads the proxy's introduction.
func (c *conn) hello() error {
	data, err := c.receive(c.timeout)
	if err != nil {
		return err
	}
	var hello zds.ZdsHello
	if err := proto.Unmarshal(data, &hello); err != nil {
		return fmt.Errorf("introduction: %w", err)
	}
	if hello.GetVersion() != zds.Version_V1 {
		return fmt.Errorf("introduction: protocol version %v, want %v", hello.GetVersion(), zds.Version_V1)
	}
	return nil
}

func (c *conn) request(r *zds.WorkloadRequest, file *os.File) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requestLocked(r, file)
}

// requestLocked sends a request and waits for its answer. A *RefusedError is the proxy's. Any other error ends the
// connection, before the next request can have it: an answer says not what it answers, so one that comes late would be
// taken for that of the next request.
func (c *conn) requestLocked(r *zds.WorkloadRequest, file *os.File) error {
	err := c.exchange(r, file)
	var refused *RefusedError
	if err != nil && !errors.As(err, &refused) {
		c.unix.Close() // serve notices
	}
	return err
}

func (c *conn) exchange(r *zds.WorkloadRequest, file *os.File) error {
	data, err := proto.Marshal(r)
	if err != nil {
		return err
	}
	if len(data) > maxPacket {
		return &RefusedError{fmt.Sprintf("a message of %d bytes is longer than the %d that fit", len(data), maxPacket)}
	}
	var rights []byte
	if file != nil {
		rights = syscall.UnixRights(int(file.Fd()))
	}
	if err := c.unix.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return err
	}
	if _, _, err := c.unix.WriteMsgUnix(data, rights, nil); err != nil {
		return fmt.Errorf("send to ztunnel: %w", err)
	}
	answer, err := c.receive(c.timeout)
	if err != nil {
		return fmt.Errorf("answer of ztunnel: %w", err)
	}
	return parseAck(answer)
}

func parseAck(data []byte) error {
	var response zds.WorkloadResponse
	if err := proto.Unmarshal(data, &response); err != nil {
		return fmt.Errorf("answer of ztunnel: %w", err)
	}
	ack := response.GetAck()
	if ack == nil {
		return errors.New("answer of ztunnel: no acknowledgement in it")
	}
	if ack.GetError() != "" {
		return &RefusedError{ack.GetError()}
	}
	return nil
}

// alive fails when the proxy has gone, or says something that nobody asked for; no request gets the connection after that.
func (c *conn) alive() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.receive(glance)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	c.unix.Close()
	if err != nil {
		return err
	}
	return errors.New("ztunnel sent a message that nobody asked for")
}

func (c *conn) receive(timeout time.Duration) ([]byte, error) {
	if err := c.unix.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	buf := make([]byte, maxPacket)
	n, _, flags, _, err := c.unix.ReadMsgUnix(buf, nil)
	if err != nil {
		return nil, err
	}
	if flags&syscall.MSG_TRUNC != 0 {
		return nil, fmt.Errorf("message longer than %d bytes", maxPacket)
	}
	return buf[:n], nil
}
