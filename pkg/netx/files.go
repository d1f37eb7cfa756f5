package netx

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// ReceiveFiles reads a message into b, and the files that come with it, called name in errors: there is room for most of them,
// rounded up to an even number. It returns how many bytes came and the flags of recvmsg(2), of which unix.MSG_CTRUNC says that files were
// left out. The caller owns the files; with an error there are none.
func ReceiveFiles(conn *net.UnixConn, b []byte, most int, name string) (n, flags int, files []*os.File, err error) {
	control := make([]byte, unix.CmsgSpace(4*most))
	n, controlLen, flags, _, err := conn.ReadMsgUnix(b, control)
	if err != nil {
		return 0, 0, nil, err
	}
	if files, err = filesOf(control[:controlLen], name); err != nil {
		return 0, 0, nil, err
	}
	return n, flags, files, nil
}

// CloseFiles closes files that nobody wants.
func CloseFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// filesOf takes the descriptors of a control message. Those before one that cannot be understood are closed.
func filesOf(control []byte, name string) (files []*os.File, err error) {
	for len(control) >= unix.SizeofCmsghdr {
		var head unix.Cmsghdr
		var data []byte
		if head, data, control, err = unix.ParseOneSocketControlMessage(control); err != nil {
			CloseFiles(files)
			return nil, fmt.Errorf("parse control message: %w", err)
		}
		fds, err := unix.ParseUnixRights(&unix.SocketControlMessage{Header: head, Data: data})
		if err != nil {
			continue // of another kind
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), name))
		}
	}
	return files, nil
}
