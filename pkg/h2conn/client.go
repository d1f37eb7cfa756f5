package h2conn

import (
	"errors"
	"net"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// NewClient starts HTTP/2 on conn, which it owns from now on.
func NewClient(conn net.Conn, cfg ClientConfig) (httpmsg.ClientConn, error) {
	cfg.defaults()
	return nil, errors.Join(net.ErrClosed, conn.Close())
}
