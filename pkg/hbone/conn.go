package hbone

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// What we announce, the same in both roles where it makes sense.
const (
	streamWindow     = 4 << 20
	connWindow       = 16 << 20
	maxFrame         = 1 << 20
	maxServerStreams = 200
	serverHeaderList = 65536
	clientHeaderList = 16384

	// maxBuffered is how much received data may wait for slow applications before the connection's
	// window stops being replenished on arrival; until then a slow stream can't hold others up.
	maxBuffered = 64 << 20
	// maxPending bounds the frames queued for a peer that does not read.
	maxPending = 1 << 20

	keepaliveInterval = 10 * time.Second
	keepaliveTimeout  = 20 * time.Second
	prefaceTimeout    = 10 * time.Second
	writeTimeout      = 30 * time.Second // for what is written at once, 256 KiB at most
)

// Errors that callers branch on.
var (
	// ErrClosed means that the connection or stream was closed on this side.
	ErrClosed = errors.New("hbone: closed")
	// ErrPingTimeout means that the peer vanished: it answered neither PING nor anything else.
	ErrPingTimeout = errors.New("hbone: peer does not answer PING")
	// ErrNotSent means that the peer has certainly not acted on the request (refused stream, GOAWAY below
	// the stream, connection gone before it was sent): it may be retried on another connection.
	ErrNotSent = errors.New("hbone: request was not processed")
	// ErrUnanswered means that the connection or the stream ended before the peer answered. It may have acted on the CONNECT, but
	// nothing of the tunnel's content had been sent: opening the tunnel again repeats nothing of what the application said.
	ErrUnanswered = errors.New("hbone: request was not answered")
	// ErrUnreachable means that there is no connection that could carry the request: nothing of it was sent.
	ErrUnreachable = errors.New("hbone: no connection to the peer")
	// ErrReset means that the peer reset the stream.
	ErrReset = errors.New("hbone: stream reset by peer")
)

// conn is one HTTP/2 connection in either role. One goroutine reads (readLoop); writers combine: whoever
// finds the connection free writes for all that queue up meanwhile. The reader never writes, so two peers
// that both push can't block each other.
type conn struct {
	// immutable
	nc     net.Conn
	write  func([]byte) (int, error) // to nc; may scribble on its argument and one byte behind
	client bool
	log    *slog.Logger
	role   role
	budget Budget        // may be nil
	turns  *netx.Taker   // of the budget
	rest   func()        // the reader calls it before it waits for anything but nc
	done   chan struct{} // closed by fail

	// owned by readLoop
	rd      *h2.Reader
	dec     *h2.HeaderDecoder
	current *Stream // of the DATA frame being read
	held    held
	control h2.Budget
	resets  h2.Budget

	reads atomic.Uint64 // frames read; keepalive compares it between ticks

	mu sync.Mutex // guards all below, and the "guarded by conn.mu" fields of streams

	streams map[uint32]*Stream
	lastID  uint32 // highest id opened: ours on a client, the peer's on a server
	peer    h2.Settings
	settled bool // the peer's SETTINGS arrived
	err     error
	goAway  bool   // we sent GOAWAY (server) or received it (client): no new streams
	goAwayN uint32 // last stream id of the GOAWAY in force

	out     []byte // frames waiting for the writer
	writing bool
	writes  uint64    // that have ended
	turn    sync.Cond // writers waiting for room in out or for the connection

	send     h2.SendWindow
	blocked  streamList // streams waiting for send, in order
	recv     h2.RecvWindow
	buffered int64 // received, not yet consumed
	deferred int64 // of buffered: not yet given back to recv

	sent, received uint64 // bytes of DATA so far

	ping pinger

	// halt asks the reader to stand still; it is set under mu.
	halt    atomic.Bool
	parked  bool      // the reader stands still
	stopped bool      // nothing is written
	retired bool      // no new streams, for the time being
	dying   error     // why the connection is about to end: a writer that is stuck is to give up
	still   sync.Cond // for whoever waits that one of these changes, or a stream is answered
}

// role is what differs between client and server.
type role interface {
	// headers handles a complete, decoded header block. It runs on the reader.
	headers(f h2.Frame, fields []h2.HeaderField, decodeErr error) error
	// goneAway handles a GOAWAY of the peer; called with conn.mu held.
	goneAway(lastID uint32)
	// closed is called with conn.mu held when a stream left the connection.
	closed()
}

func newConn(nc net.Conn, client bool, log *slog.Logger) *conn {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &conn{
		nc: nc, client: client, log: log,
		done:    make(chan struct{}),
		streams: make(map[uint32]*Stream),
		peer:    h2.DefaultSettings(),
		send:    h2.NewSendWindow(h2.DefaultWindow),
		recv:    h2.NewRecvWindow(connWindow),
		control: h2.NewBudget(1000, 50),
		resets:  h2.NewBudget(5000, 1000),
	}
	c.rest = func() {}
	c.turn.L = &c.mu
	c.still.L = &c.mu
	list := serverHeaderList
	if client {
		list = clientHeaderList
	}
	c.dec = h2.NewHeaderDecoder(list)
	records := innermost(nc)
	c.write = records.Write
	if owned, ok := records.(interface{ WriteOwned([]byte) (int, error) }); ok {
		c.write = owned.WriteOwned
	}
	c.rd = h2.NewReader(records, h2.Limits{MaxFrameSize: maxFrame, MaxHeaderBlock: 2 * list}, netx.Pool)
	c.rd.OnIdle = c.onIdle
	c.rd.OnReuse(c.pass)
	return c
}

// start queues what must be first on the wire and starts the keepalive. It precedes readLoop, so that no
// acknowledgement can overtake the preface.
func (c *conn) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reserve(256)
	settings := []h2.Setting{
		{ID: h2.SettingInitialWindowSize, Value: streamWindow},
		{ID: h2.SettingMaxFrameSize, Value: maxFrame},
	}
	if c.client {
		c.out = append(c.out, h2.Preface...)
		settings = append(settings,
			h2.Setting{ID: h2.SettingEnablePush, Value: 0},
			h2.Setting{ID: h2.SettingMaxHeaderListSize, Value: clientHeaderList})
	} else {
		settings = append(settings,
			h2.Setting{ID: h2.SettingMaxConcurrentStreams, Value: maxServerStreams},
			h2.Setting{ID: h2.SettingMaxHeaderListSize, Value: serverHeaderList})
	}
	c.out = h2.AppendSettings(c.out, settings...)
	c.out = h2.AppendWindowUpdate(c.out, 0, connWindow-h2.DefaultWindow)
	c.flushAsync()
	c.ping.start(c)
}

// fail ends the connection: every stream fails with err. Only the first call has an effect.
func (c *conn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	if c.dying != nil {
		err = c.dying // that the farewell could not be sent is not the cause
	}
	c.err = err
	close(c.done)
	c.ping.stop()
	streams := make([]*Stream, 0, len(c.streams))
	for _, s := range c.streams {
		streams = append(streams, s)
	}
	clear(c.streams)
	c.blocked = streamList{}
	c.turn.Broadcast()
	c.still.Broadcast()
	for _, s := range streams {
		s.abortLocked(err)
	}
	c.role.closed()
	c.mu.Unlock()
	for _, s := range streams {
		s.endReceive(err)
	}
	c.nc.Close()
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
	c.dying = err
	var ce h2.ConnError
	if errors.As(err, &ce) {
		c.log.Debug("closing HBONE connection", "peer", c.nc.RemoteAddr(), "err", err)
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
	c.fail(err)
}

// readLoop reads until the connection fails and returns why.
func (c *conn) readLoop() error {
	var err error
	for err == nil {
		if c.halt.Load() {
			c.rest()
			if err = c.standStill(); err != nil {
				break
			}
		}
		var f h2.Frame
		f, err = c.rd.Next()
		if err == nil {
			c.reads.Add(1)
			err = c.dispatch(f)
		}
		if err != nil {
			err = c.forgive(err)
		}
	}
	c.rest()
	if errors.Is(err, ErrMoved) {
		c.rd.Release()
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	c.pass()
	c.die(err)
	c.rd.Release()
	return c.failure()
}

// forgive deals with an error that concerns one stream; others end the connection.
func (c *conn) forgive(err error) error {
	var se h2.StreamError
	if errors.As(err, &se) {
		return c.streamError(se)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && c.rd.Resumable() && c.failure() == nil {
		return nil // the reader was asked to stand still
	}
	return err
}

// onIdle runs on the reader when keepalive found the connection silent: reading goes on with the small buffer; or when the reader
// is to stand still, and it stands where it can.
func (c *conn) onIdle() bool {
	if c.failure() != nil || c.nc.SetReadDeadline(time.Time{}) != nil {
		return false
	}
	return !c.halt.Load() || !c.rd.Resumable()
}
