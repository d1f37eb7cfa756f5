package h2conn

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

const (
	maxPending     = 1 << 20 // bounds the frames queued for a peer that does not read
	prefaceTimeout = 10 * time.Second
	// unsettledStreams is how many streams we open before the peer said how many it takes.
	unsettledStreams = 100
)

// Errors that end a connection.
var (
	errClosed      = errors.New("connection closed")
	errDrained     = errors.New("connection drained")
	errIdle        = errors.New("connection idle")
	errPingTimeout = errors.New("peer does not answer PING")
	errStalled     = errors.New("peer does not read")
	errSlowHeaders = errors.New("header block did not come in time")
)

// conn is one HTTP/2 connection in either role. One goroutine reads (readLoop); writers combine: whoever finds the connection free
// writes for all that queue up meanwhile. The reader never writes, so two peers that both push can't block each other.
type conn struct {
	// immutable
	nc      net.Conn
	opt     Options
	client  bool
	role    role
	done    chan struct{} // closed by fail
	closing chan struct{} // closed when no new streams are taken
	ready   chan struct{} // closed when the peer's SETTINGS arrived

	// owned by readLoop
	rd      *h2.Reader
	dec     *h2.HeaderDecoder
	current *stream   // of the DATA frame being read
	wakes   []*stream // whose readers have something new: see onWait
	control h2.Budget
	resets  h2.Budget

	reads     atomic.Uint64 // frames read; keepalive compares it between ticks
	parted    atomic.Bool   // a stream waits for the reader to be between frames
	completed atomic.Int32  // messages sent since the last RST_STREAM: what makes resets forgivable

	mu sync.Mutex // guards all below, and what streams say it guards; a stream's rmu may be taken while it is held

	streams map[uint32]*stream
	lastID  uint32 // highest id opened: ours on a client, the peer's on a server
	limit   uint32 // of streams, by our own configuration
	peer    h2.Settings
	settled bool // the peer's SETTINGS arrived
	err     error
	goAway  bool // no new streams
	ended   closedStreams

	out     []byte // frames waiting for the writer
	writing bool
	crowded bool // others wrote when they were last let run before a write
	tail    tailFrame
	turn    sync.Cond // writers waiting for room in out or for the connection

	send     h2.SendWindow
	blocked  streamList // streams waiting for send, in order
	recv     h2.RecvWindow
	buffered int64 // received, not yet consumed
	deferred int64 // of buffered: not yet given back to recv

	ping  pinger
	stall stall
	idle  *time.Timer
}

// role is what differs between client and server.
type role interface {
	// headers handles a complete, decoded header block. It runs on the reader.
	headers(f h2.Frame, fields []h2.HeaderField, decodeErr error) error
	// goneAway handles a GOAWAY of the peer; called with conn.mu held.
	goneAway(lastID uint32)
	// left is called with conn.mu held when a stream left the connection.
	left()
	// onWait is called by the reader before it waits.
	onWait()
	// settle is called by the reader between frames, with conn.mu held: see spares.
	settle()
}

func newConn(nc net.Conn, client bool, limit uint32, opt Options) *conn {
	c := &conn{
		nc: nc, opt: opt, client: client, limit: limit,
		done:    make(chan struct{}),
		closing: make(chan struct{}),
		ready:   make(chan struct{}),
		streams: make(map[uint32]*stream),
		peer:    h2.DefaultSettings(),
		send:    h2.NewSendWindow(h2.DefaultWindow),
		recv:    h2.NewRecvWindow(opt.ConnWindow),
		control: h2.NewBudget(1000, 100),
		resets:  h2.NewBudget(1000, 200),
	}
	c.turn.L = &c.mu
	c.dec = h2.NewHeaderDecoder(opt.MaxHeaderBytes)
	c.rd = h2.NewReader(nc, h2.Limits{MaxHeaderBlock: 2 * opt.MaxHeaderBytes}, netx.Pool)
	c.rd.OnIdle = c.onIdle
	c.rd.OnWait = c.onWait
	return c
}

// start queues what must be first on the wire and starts the keepalive. It precedes readLoop, so that no acknowledgement can
// overtake the preface.
func (c *conn) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reserve(256)
	settings := []h2.Setting{
		{ID: h2.SettingInitialWindowSize, Value: c.opt.StreamWindow},
		{ID: h2.SettingMaxHeaderListSize, Value: uint32(c.opt.MaxHeaderBytes)},
	}
	if c.client {
		c.out = append(c.out, h2.Preface...)
		settings = append(settings, h2.Setting{ID: h2.SettingEnablePush, Value: 0})
	} else {
		settings = append(settings,
			h2.Setting{ID: h2.SettingMaxConcurrentStreams, Value: c.limit},
			h2.Setting{ID: h2.SettingEnableConnect, Value: 1})
	}
	c.out = h2.AppendSettings(c.out, settings...)
	if c.opt.ConnWindow > h2.DefaultWindow {
		c.out = h2.AppendWindowUpdate(c.out, 0, c.opt.ConnWindow-h2.DefaultWindow)
	}
	c.flushAsync()
	c.ping.start(c)
}

// fail ends the connection: every stream fails with err. Only the first call has an effect.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	close(c.done)
	c.noMoreLocked()
	c.ping.stop()
	c.stall.stop()
	if c.idle != nil {
		c.idle.Stop()
	}
	c.blocked = streamList{}
	lost := fmt.Errorf("%w: connection to %s lost: %w", httpmsg.ErrReset, c.nc.RemoteAddr(), err)
	for id, s := range c.streams {
		delete(c.streams, id)
		s.abortLocked(lost)
	}
	c.turn.Broadcast()
	c.nc.Close()
}

// noMoreLocked says that no more streams are taken.
func (c *conn) noMoreLocked() {
	if !c.goAway {
		c.goAway = true
		close(c.closing)
	}
}

// failure returns why the connection ended, nil while it works.
func (c *conn) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// die tells the peer why (if it still listens) and fails the connection. It runs on the reader.
func (c *conn) die(err error) {
	c.nc.SetWriteDeadline(time.Now().Add(time.Second)) // also releases a writer that is stuck
	c.mu.Lock()
	var ce h2.ConnError
	if errors.As(err, &ce) {
		c.opt.Log.Debug("closing HTTP/2 connection", "peer", c.nc.RemoteAddr(), "err", err)
		last := uint32(0)
		if !c.client {
			last = c.lastID
		}
		c.reserve(128)
		c.out = h2.AppendGoAway(c.out, last, ce.Code, ce.Reason)
	}
	// What is queued may tell the peer why; somebody else may be writing it.
	c.flush()
	for c.writing && c.err == nil {
		c.turn.Wait()
	}
	c.mu.Unlock()
	if ce.Code != h2.NoError {
		c.linger()
	}
	c.fail(err)
}

// linger lets the peer read the GOAWAY: closing a socket with unread bytes would reset it.
func (c *conn) linger() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.nc.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.CopyN(io.Discard, c.nc, 1<<20)
}

// readLoop reads until the connection fails and returns why.
func (c *conn) readLoop() error {
	var err error
	for err == nil {
		var f h2.Frame
		c.settle()
		f, err = c.rd.Next()
		if err == nil {
			c.reads.Add(1)
			err = c.dispatch(f)
		}
		if err != nil {
			err = c.onError(err)
		}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	c.onWait()
	c.die(err)
	c.rd.Release()
	return c.failure()
}

// wakeSoon has the reader of a stream woken when all that has come is handed on: more of what it waits for may be in it, and most messages
// come whole. It runs on the connection's reader.
func (c *conn) wakeSoon(s *stream) {
	if !s.listed {
		s.listed = true
		c.wakes = append(c.wakes, s)
	}
}

// onWait runs on the connection's reader before it waits.
func (c *conn) onWait() {
	c.dec.Rest()
	for i, s := range c.wakes {
		c.wakes[i], s.listed = nil, false
		s.rmu.Lock()
		s.wakeReader()
		s.rmu.Unlock()
	}
	c.wakes = c.wakes[:0]
	c.settle()
	c.role.onWait()
}

// onError handles what concerns one stream only; other errors it returns.
func (c *conn) onError(err error) error {
	var se h2.StreamError
	if errors.As(err, &se) {
		return c.streamError(se)
	}
	return err
}

// onIdle runs on the reader when keepalive found the connection silent: reading goes on with the small buffer.
func (c *conn) onIdle() bool {
	if c.failure() != nil {
		return false
	}
	return c.nc.SetReadDeadline(time.Time{}) == nil
}

// hangUp closes a connection that has no more to say, once what is queued is written.
func (c *conn) hangUp(why error) {
	c.mu.Lock()
	c.flush()
	for c.writing && c.err == nil {
		c.turn.Wait()
	}
	c.turn.Signal()
	c.mu.Unlock()
	c.fail(why)
}

// closedStreams remembers the ids of streams that ended lately: what may still come for them depends on how they ended.
type closedStreams struct {
	ids  [64]uint32
	next int
}

const closedByUs = 1 << 31

func (r *closedStreams) add(id uint32, byUs bool) {
	if byUs {
		id |= closedByUs
	}
	r.ids[r.next%len(r.ids)] = id
	r.next++
}

// find tells whether a stream is known to have ended, and whether it was us who reset it.
func (r *closedStreams) find(id uint32) (known, byUs bool) {
	for _, e := range r.ids {
		if e&^closedByUs == id {
			return true, e&closedByUs != 0
		}
	}
	return false, false
}
