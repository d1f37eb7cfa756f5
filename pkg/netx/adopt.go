package netx

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Adopt goes on with a TCP socket that another process has made in this namespace; one of another namespace is refused. It does not
// close file, and does nothing that the connection's peer could notice.
func (n *NS) Adopt(file *os.File) (*net.TCPConn, error) {
	dev, ino, err := socketNS(file)
	if err != nil {
		return nil, fmt.Errorf("adopt a socket: its network namespace: %w", err)
	}
	if dev != n.dev || ino != n.ino {
		return nil, errors.New("adopt a socket: it is of another network namespace")
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("adopt a socket: %w", err)
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("adopt a socket: it is of type %T", conn)
	}
	// Package net has set its own defaults.
	if err := tcp.SetKeepAliveConfig(n.opt.Keepalive.config()); err != nil {
		tcp.Close()
		return nil, fmt.Errorf("adopt a socket: keepalive: %w", err)
	}
	return tcp, nil
}

// socketNS identifies the namespace of a socket.
func socketNS(file *os.File) (dev, ino uint64, err error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var st unix.Stat_t
	cerr := raw.Control(func(fd uintptr) {
		var ns int
		if ns, err = unix.IoctlRetInt(int(fd), unix.SIOCGSKNS); err != nil {
			return
		}
		defer unix.Close(ns)
		err = unix.Fstat(ns, &st)
	})
	return st.Dev, st.Ino, errors.Join(cerr, err)
}
