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
	data, control := make([]byte, maxPacket), make([]byte, syscall.CmsgSpace(4*4))
	n, controlLen, flags, _, err := c.conn.ReadMsgUnix(data, control)
	if err != nil {
		return nil, nil, err
	}
	files, err := filesOf(control[:controlLen])
	request := &zds.WorkloadRequest{}
	if err == nil {
		err = check(request, data[:n], flags, len(files))
	}
	if err != nil {
		closeAll(files)
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

func filesOf(control []byte) ([]*os.File, error) {
	if len(control) == 0 {
		return nil, nil
	}
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("parse control message: %w", err)
	}
	var files []*os.File
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "netns"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
