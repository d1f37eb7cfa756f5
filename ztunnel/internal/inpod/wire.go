package inpod

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pkg/api/zds"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// maxPacket is the largest message either side sends, in bytes.
const maxPacket = 1024

// channel is one connection to the agent: a packet is a message.
type channel struct{ conn *net.UnixConn }

func dial(ctx context.Context, socket string) (*channel, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", socket)
	if err != nil {
		return nil, fmt.Errorf("connect the CNI agent: %w", err)
	}
	return &channel{conn.(*net.UnixConn)}, nil
}

func (c *channel) send(m proto.Message) error {
	data, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	_, err = c.conn.Write(data)
	return err
}

// receive returns the next request and the file that came with it, or nil. The caller owns the file.
func (c *channel) receive() (*zds.WorkloadRequest, *os.File, error) {
	data := make([]byte, maxPacket)
	n, flags, files, err := netx.ReceiveFiles(c.conn, data, 4, "netns")
	if err != nil {
		return nil, nil, err
	}
	request := &zds.WorkloadRequest{}
	if err := check(request, data[:n], flags, len(files)); err != nil {
		netx.CloseFiles(files)
		return nil, nil, &readError{err}
	}
	if len(files) == 1 {
		return request, files[0], nil
	}
	return request, nil, nil
}

// readError is a message that could not be understood: the connection is of no more use.
type readError struct{ err error }

func (e *readError) Error() string { return "failure to read message : " + e.err.Error() }

func (e *readError) Unwrap() error { return e.err }

// check decodes a packet and refuses what the protocol does not allow.
func check(into *zds.WorkloadRequest, data []byte, flags, files int) error {
	if flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0 {
		return fmt.Errorf("message truncated at %d bytes", maxPacket)
	}
	if err := proto.Unmarshal(data, into); err != nil {
		return err
	}
	switch into.GetPayload().(type) {
	case nil:
		return errors.New("message without payload")
	case *zds.WorkloadRequest_Add:
		if files != 1 {
			return fmt.Errorf("add with %d network namespaces, want 1", files)
		}
	default:
		if files != 0 {
			return errors.New("file descriptor where none belongs")
		}
	}
	return nil
}
