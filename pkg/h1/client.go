package h1

import (
	"net"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// NewClient makes a connection for requests, one at a time, out of conn, which it owns from now on.
func NewClient(conn net.Conn, cfg ClientConfig) httpmsg.ClientConn {
	cfg.defaults()
	_ = conn
	return nil
}
