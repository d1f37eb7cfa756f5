package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// relay copies until both directions ended, and names the reason when it was ended from outside.
func relay(ctx context.Context, downstream, upstream netx.Stream, bytes *netx.Counters, gate *netx.Gate) error {
	err := netx.RelayThrough(ctx, downstream, upstream, bytes, gate)
	if errors.Is(err, netx.ErrMoved) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
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
