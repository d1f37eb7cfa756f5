package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// carry relays a connection whose ends are there. It returns when the connection is over or asleep. It waits for its application most of
// its life: what was needed only to open it, and what is to be done at its end, is in functions that are not on the stack by then. A stack
// of which 1.2 KiB are in use takes 4 KiB, with a little more it takes 8.
func (i *Instance) carry(o *open) {
	i.deps.Sleepers.Relay(o.life, o.downstream, o.upstream, &o.record.bytes, o.gate, func(err error) { i.over(o, err) })
}

// over ends what carry has carried, and names the reason when it was ended from outside. Whoever admitted the connection leaves that to it.
func (i *Instance) over(o *open, err error) {
	if o.life.Err() != nil && !errors.Is(err, netx.ErrMoved) {
		err = netx.Cause(o.life)
	}
	i.finish(o.record, err)
	o.upstream.Close()
	i.leave(o)
	o.downstream.Close()
	i.account.Leave()
	o.done()
}

// leave forgets a connection.
func (i *Instance) leave(o *open) {
	i.registry.remove(o)
	o.life.End(nil)
}

func asStream(conn net.Conn) (netx.Stream, error) {
	if stream, ok := conn.(netx.Stream); ok {
		return stream, nil
	}
	conn.Close()
	return nil, fmt.Errorf("connection of type %T cannot be half-closed", conn)
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		ap := tcp.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

func protocolName(tunnelled bool) string {
	if tunnelled {
		return "HBONE"
	}
	return "TCP"
}

// baggageOf describes a workload to the other end of a tunnel.
func baggageOf(w *l4.Workload) string {
	return hbone.Baggage(hbone.Workload{
		Cluster: w.ClusterID, Namespace: w.Namespace, WorkloadType: strings.ToLower(w.Type.String()), WorkloadName: w.WorkloadName,
		Service: w.CanonicalName, Version: w.CanonicalRevision, Region: w.Locality.Region, Zone: w.Locality.Zone,
	})
}
