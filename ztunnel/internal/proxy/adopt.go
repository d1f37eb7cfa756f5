package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// Adoption is a parcel that an old instance has offered, before it goes on here.
type Adoption struct {
	i       *Instance
	p       *parcel
	sockets []*net.TCPConn // all of them, the tunnel's first
	secured hbone.Secured  // of a tunnel, as is the rest
	own     *certs.Workload
	resumed *hbone.Resumed
}

// adopter is a Network that takes sockets which were made in it.
type adopter interface {
	Adopt(file *os.File) (*net.TCPConn, error)
}

// Parcel is what an old instance offers. Its PodUID says which instance is to adopt it.
type Parcel struct{ p *parcel }

// OpenParcel reads an offer.
func OpenParcel(body []byte) (*Parcel, error) {
	p, err := decodeParcel(body)
	if err != nil {
		return nil, err
	}
	return &Parcel{p}, nil
}

// PodUID is the pod whose connections these are.
func (p *Parcel) PodUID() string { return p.p.pod }

// Erase forgets the keys of a parcel that is not adopted.
func (p *Parcel) Erase() {
	if p.p.tunnel != nil {
		p.p.tunnel.Erase()
	}
}

// Adopt makes everything ready to go on with a parcel. It owns the files, and touches the connections behind them in no way that
// their ends could notice.
func (i *Instance) Adopt(ctx context.Context, parcel *Parcel, files []*os.File) (*Adoption, error) {
	a := &Adoption{i: i, p: parcel.p}
	err := a.prepare(ctx, files)
	if err == nil && !i.enter() {
		err = errDrained
	}
	if err != nil {
		parcel.Erase()
		a.release()
		return nil, err
	}
	return a, nil
}

// prepare takes the sockets and resumes what is in memory.
func (a *Adoption) prepare(ctx context.Context, files []*os.File) error {
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	want := len(a.p.conns) + 1 // a tunnel, or the second end
	if len(files) != want {
		return fmt.Errorf("%d sockets, want %d", len(files), want)
	}
	network, ok := a.i.pod.Net.(adopter)
	if !ok {
		return errors.New("the pod's network takes no sockets")
	}
	for _, f := range files {
		conn, err := network.Adopt(f)
		if err != nil {
			return err
		}
		a.sockets = append(a.sockets, conn)
	}
	if err := a.consistent(); err != nil {
		return err
	}
	_, local, err := a.i.local.Workload(ctx)
	if err != nil || a.p.form == movePlain {
		return err
	}
	if a.own, err = a.i.deps.Certs.Get(ctx, local.Identity()); err != nil {
		return fmt.Errorf("certificate of %s: %w", local.Identity(), err)
	}
	if a.secured, err = hbone.ResumeTLS(a.sockets[0], a.p.tunnel); err != nil {
		return err
	}
	if r := a.i.deps.Revocation; r != nil {
		if err := r.Check(a.secured.ConnectionState().PeerCertificates, a.own.RootCerts); err != nil {
			return fmt.Errorf("peer: %w", err)
		}
	}
	if a.p.form == moveServer {
		id, ok := certs.PeerID(a.secured.ConnectionState())
		if !ok {
			return errors.New("peer has no SPIFFE identity")
		}
		for n := range a.p.conns {
			if a.p.conns[n].sourceID != id.String() {
				return errors.New("a connection of somebody else than the tunnel's peer")
			}
		}
	}
	reporter := reportSource
	if a.p.form == moveServer {
		reporter = reportDestination
	}
	a.resumed, err = hbone.Resume(a.i.track(a.secured, a.own, reporter), a.p.tunnel, a.i.deps.Log)
	return err
}

// consistent compares what is said of the connections, on which policies and logs rely, with the sockets.
func (a *Adoption) consistent() error {
	for n := range a.p.conns {
		c, from := &a.p.conns[n], a.sockets[0]
		if a.p.form == moveClient {
			from = a.sockets[n+1]
		}
		inbound := a.p.form == moveServer || a.p.form == movePlain && !c.outbound
		switch {
		case c.src != addrPort(from.RemoteAddr()):
			return fmt.Errorf("a connection from %s, whose socket is from %s", c.src, from.RemoteAddr())
		case inbound && c.checkSource != c.src, c.outbound == inbound, c.secure != (a.p.form != movePlain):
			return errors.New("a connection of another kind than its sockets")
		}
	}
	return nil
}

// release closes this process's hold on the sockets.
func (a *Adoption) release() {
	if a.secured != nil {
		a.i.forget(a.secured)
		hbone.Forget(a.secured)
	}
	for _, s := range a.sockets {
		s.Close()
	}
}

// Drop forgets a parcel that somebody else goes on with.
func (a *Adoption) Drop() {
	defer a.i.accepts.Done()
	a.release()
}

// Go goes on with the connections.
func (a *Adoption) Go() {
	i := a.i
	defer i.accepts.Done()
	switch a.p.form {
	case movePlain:
		i.account.Enter()
		i.conns.Hold()
		i.conns.Go(func() { i.carryOn(i.ctx, &a.p.conns[0], a.sockets[0], a.sockets[1], i.release) })
	case moveServer:
		i.account.Enter()
		i.conns.Go(a.serve)
	case moveClient:
		a.dialled()
	}
}

// serve goes on with a connection of a peer.
func (a *Adoption) serve() {
	i := a.i
	peer, local := addrPort(a.sockets[0].RemoteAddr()), addrPort(a.sockets[0].LocalAddr())
	id, _ := certs.PeerID(a.secured.ConnectionState()) // checked in prepare
	defer i.account.Leave()
	defer a.sockets[0].Close()
	defer i.forget(a.secured)
	handler := &tunnelHandler{instance: i, peer: peer, local: local, id: id}
	apps := a.apps()
	defer i.servers.remove(a.resumed.Live())
	err := a.resumed.Serve(i.ctx, handler, i.serverConfig(), func(ctx context.Context, s *hbone.Stream, done func()) {
		end := apps[s]
		i.account.Enter()
		i.carryOn(ctx, end.conn, s, end.app, done)
	})
	if err != nil {
		i.deps.Log.Debug("tunnel connection ended", "peer", peer, "error", err)
		i.cut(directionInbound, peer, err)
	}
}

// dialled goes on with a connection that this pod has dialled.
func (a *Adoption) dialled() {
	i := a.i
	a.resumed.Charge(i.account)
	cc := a.resumed.Start()
	if err := i.pool.Adopt(a.p.key, cc, a.p.expiry); err != nil {
		i.deps.Log.Warn("a tunnel that was taken over is closed", "error", err)
		cc.Close()
	}
	for s, end := range a.apps() {
		i.account.Enter()
		i.conns.Hold()
		i.conns.Go(func() { i.carryOn(i.ctx, end.conn, end.app, s, i.release) })
	}
}

type appEnd struct {
	conn *carried
	app  *net.TCPConn
}

func (a *Adoption) apps() map[*hbone.Stream]appEnd {
	ends := map[*hbone.Stream]appEnd{}
	for n, s := range a.resumed.Streams() {
		ends[s] = appEnd{&a.p.conns[n], a.sockets[n+1]}
	}
	return ends
}

// carryOn relays a connection, which has its place in the account, from where it stood. Done is called at its end.
func (i *Instance) carryOn(ctx context.Context, c *carried, downstream, upstream netx.Stream, done func()) {
	o := i.reopen(ctx, c, downstream, upstream)
	if o == nil {
		netx.Abort(upstream)
		netx.Abort(downstream)
		i.account.Leave()
		done()
		return
	}
	o.done = done
	i.carry(o)
}

// reopen makes a connection known here; nil is one that is not to go on.
func (i *Instance) reopen(ctx context.Context, c *carried, downstream, upstream netx.Stream) *open {
	life := netx.NewLife(ctx)
	state, local, err := i.local.Workload(life) //nolint:contextcheck // life is made from ctx
	if err != nil {
		i.logEarly(directionOutbound, c.src, c.dst, err)
		life.End(nil)
		return nil
	}
	t, err := c.traffic(state)
	r := i.begin(t)
	r.adopt(c)
	o := &open{
		inbound: !c.outbound, life: life, record: r, check: c.check(t), gate: netx.NewGate(c.sent, c.received),
		info: ConnInfo{Src: c.src, OriginalDst: c.originalDst, ActualDst: c.actualDst, Protocol: protocolName(c.secure)},
	}
	o.connected(downstream, upstream)
	// Registered before the policies are asked: whoever changes them later sees this connection.
	i.registry.add(o)
	if err == nil && o.inbound && !state.PoliciesFor(local).Check(o.check).Allowed {
		err = errPolicyChange
	}
	if err != nil {
		o.gate.Abandon()
		r.end(err)
		i.leave(o)
		return nil
	}
	return o
}

// finish ends the record of a connection, unless it goes on elsewhere.
func (i *Instance) finish(r *record, err error) {
	if errors.Is(err, netx.ErrMoved) {
		r.moved()
		return
	}
	i.overBudget(r, err)
	r.end(err)
}
