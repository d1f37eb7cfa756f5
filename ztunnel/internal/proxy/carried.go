package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/authz"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/pack"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// The forms of what is handed over.
const (
	movePlain  = 1 // two sockets, downstream first
	moveClient = 2 // a tunnel connection of the pool, and the application's socket of each stream
	moveServer = 3 // the same for a connection of a peer
)

// carried is one connection on its way to another process: what logs, metrics and policies need to know of it, and where its relay
// stands.
type carried struct {
	stream                        uint32 // on its tunnel
	outbound, secure              bool
	src, dst, actualDst           netip.AddrPort
	originalDst, hboneDst         string
	source, destination, service  string // names in the state
	sourceID, destinationID       string
	checkSource, checkDestination netip.AddrPort
	start                         time.Time
	sentBytes, receivedBytes      uint64
	sent, received                netx.Way
}

// capture describes an open connection whose relay stands still.
func capture(o *open) carried {
	o.record.report()
	t := &o.record.traffic
	c := carried{
		outbound: t.outbound, secure: t.secure, src: t.src, dst: t.dst, actualDst: o.info.ActualDst, originalDst: o.info.OriginalDst,
		hboneDst: t.hboneDst, sourceID: t.sourceID.String(), destinationID: t.destinationID.String(),
		checkSource: o.check.Source, checkDestination: o.check.Destination, start: o.record.start,
		sentBytes: o.record.bytes.Sent.Load(), receivedBytes: o.record.bytes.Received.Load(),
	}
	if t.source != nil {
		c.source = t.source.UID
	}
	if t.destination != nil {
		c.destination = t.destination.UID
	}
	if t.service != nil {
		c.service = t.service.Namespace + "/" + t.service.Hostname
	}
	if !t.secure {
		c.sourceID, c.destinationID = "", ""
	}
	c.sent, c.received = o.gate.State()
	return c
}

func (c *carried) encode(w *pack.Writer) {
	w.Uint(uint64(c.stream))
	w.Bool(c.outbound)
	w.Bool(c.secure)
	for _, a := range []netip.AddrPort{c.src, c.dst, c.actualDst, c.checkSource, c.checkDestination} {
		w.Addr(a)
	}
	for _, text := range []string{c.originalDst, c.hboneDst, c.source, c.destination, c.service, c.sourceID, c.destinationID} {
		w.Text(text)
	}
	w.Int(c.start.UnixNano())
	w.Uint(c.sentBytes)
	w.Uint(c.receivedBytes)
	for _, way := range []netx.Way{c.sent, c.received} {
		w.Bool(way.Ended)
		w.Bytes(way.Rest)
	}
}

func decodeCarried(r *pack.Reader) carried {
	c := carried{stream: uint32(r.Uint(1<<31 - 1)), outbound: r.Bool(), secure: r.Bool()}
	for _, a := range []*netip.AddrPort{&c.src, &c.dst, &c.actualDst, &c.checkSource, &c.checkDestination} {
		*a = r.Addr()
	}
	for _, text := range []*string{&c.originalDst, &c.hboneDst, &c.source, &c.destination, &c.service, &c.sourceID, &c.destinationID} {
		*text = r.Text()
	}
	c.start = time.Unix(0, r.Int())
	c.sentBytes, c.receivedBytes = r.Uint(1<<64-1), r.Uint(1<<64-1)
	for _, way := range []*netx.Way{&c.sent, &c.received} {
		way.Ended, way.Rest = r.Bool(), r.Bytes()
	}
	return c
}

// traffic finds what c names in the state of this process.
func (c *carried) traffic(s *l4.State) (traffic, error) {
	t := traffic{outbound: c.outbound, secure: c.secure, src: c.src, dst: c.dst, hboneDst: c.hboneDst}
	var err error
	if c.secure {
		if t.sourceID, err = spiffe.Parse(c.sourceID); err != nil {
			return t, fmt.Errorf("source identity: %w", err)
		}
		if c.destinationID != "" {
			if t.destinationID, err = spiffe.Parse(c.destinationID); err != nil {
				return t, fmt.Errorf("destination identity: %w", err)
			}
		}
	}
	t.source, t.destination = s.Workload(c.source), s.Workload(c.destination)
	if key, ok := l4.ParseServiceKey(c.service); ok {
		t.service = s.Service(key)
	}
	return t, nil
}

// check is what policies are asked about an inbound connection.
func (c *carried) check(t traffic) authz.Conn {
	check := authz.Conn{Source: c.checkSource, Destination: c.checkDestination}
	if t.secure {
		check.Identity = t.sourceID
	}
	return check
}

// parcel is all that goes with one offer, the sockets apart.
type parcel struct {
	form  uint64
	pod   string // uid
	conns []carried

	// The rest is of tunnels.
	key    hbone.PoolKey // of a client
	expiry time.Time     // zero is never
	tunnel *hbone.State
}

// encode returns the message, which the caller clears: it holds keys and what is under way.
func (p *parcel) encode() []byte {
	var w pack.Writer
	w.Uint(p.form)
	w.Text(p.pod)
	w.Uint(uint64(len(p.conns)))
	for i := range p.conns {
		p.conns[i].encode(&w)
	}
	if p.form == moveClient {
		w.Text(p.key.Source)
		w.Addr(netip.AddrPortFrom(p.key.SourceIP, 0))
		w.Addr(p.key.Dest)
		w.Text(p.key.ExpectedSANs)
		if p.expiry.IsZero() {
			w.Int(0)
		} else {
			w.Int(p.expiry.Unix())
		}
	}
	if p.tunnel != nil {
		state := p.tunnel.Encode()
		w.Bytes(state)
		clear(state)
	}
	return w.Finish()
}

// maxCarried bounds the connections of one parcel.
const maxCarried = 1000

// decodeParcel reads what encode has written, and keeps no part of it. Whoever has the result erases its tunnel.
func decodeParcel(b []byte) (*parcel, error) {
	r := pack.NewReader(b)
	p := &parcel{form: r.Uint(moveServer), pod: r.Text()}
	n := r.Uint(maxCarried)
	for range n {
		p.conns = append(p.conns, decodeCarried(r))
		if r.Err() != nil {
			break
		}
	}
	switch p.form {
	case movePlain:
		if len(p.conns) != 1 {
			r.Fail(errors.New("a plain connection is one"))
		}
	case moveClient:
		p.key.Source = r.Text()
		p.key.SourceIP = r.Addr().Addr()
		p.key.Dest = r.Addr()
		p.key.ExpectedSANs = r.Text()
		if at := r.Int(); at != 0 {
			p.expiry = time.Unix(at, 0)
		}
	case moveServer:
	default:
		r.Fail(errors.New("an unknown form"))
	}
	if p.form == movePlain {
		return p, r.End()
	}
	state := r.Borrow()
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("what is offered: %w", err)
	}
	var err error
	if p.tunnel, err = hbone.ParseState(state); err != nil {
		return nil, err
	}
	if err := p.fits(); err != nil {
		p.tunnel.Erase()
		return nil, err
	}
	return p, nil
}

// fits makes sure that each stream of the tunnel has its connection.
func (p *parcel) fits() error {
	ids := p.tunnel.StreamIDs()
	if p.tunnel.Client() != (p.form == moveClient) || len(ids) != len(p.conns) {
		return errors.New("a tunnel with other streams than connections")
	}
	for i, id := range ids {
		if p.conns[i].stream != id {
			return errors.New("a tunnel with other streams than connections")
		}
	}
	return nil
}
