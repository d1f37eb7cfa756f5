package proxy

import (
	"net"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/proxyproto"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// introduced reads who the client is from the PROXY header that the connection begins with. It is called only for listeners that are
// configured so; there a connection without one is refused, as what it says of itself elsewhere would then be believed.
func (d *downstream) introduced(tcp *net.TCPConn) bool {
	err := tcp.SetReadDeadline(time.Now().Add(d.srv.deps.Limits.HandshakeTimeout))
	var header proxyproto.Header
	if err == nil {
		header, err = proxyproto.Read(tcp)
	}
	if err == nil {
		err = tcp.SetReadDeadline(time.Time{})
	}
	if err != nil {
		d.srv.stats.handshakeErrors.Add(1)
		r := d.record(KindConnection, nil)
		r.Flags, r.Details, r.Termination = l7.FlagDownstreamProtocolError, "proxy_protocol", err.Error()
		r.Duration = d.srv.deps.Clock().Sub(d.start)
		d.srv.deps.Observer.Ended(r)
		return false
	}
	if header.Source.IsValid() { // else the connection is the proxy's own
		d.conn.Via, d.conn.Source, d.conn.Destination = d.conn.Source, header.Source, header.Destination
	}
	return true
}
