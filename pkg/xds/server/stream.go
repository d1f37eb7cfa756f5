package server

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
)

// stream is one client's connection. Two goroutines serve it in turns, one the client's requests and the other what is published:
// whose turn it is steps the subscriptions and writes.
type stream struct {
	// immutable
	server    *Server
	id        uint64
	peer      Peer
	connected time.Time
	wake      chan struct{} // holds one token: something has been published

	// guarded by turn; keys also needs the topic's mu
	turn   sync.Mutex
	failed bool // there are no more turns
	keys   map[demanded]struct{}
	// topics are those that know the stream; scopes those it is a member of
	topics  map[*topic]struct{}
	scopes  []*scope
	renewed renewed
	warming warming

	// guarded by mu: for wakeUp and Clients
	mu     sync.Mutex
	since  time.Time // of the oldest publication not taken up yet
	node   *corev3.Node
	status []TypeStatus
}

// demanded is a key by which a stream is woken.
type demanded struct {
	of  *topic
	key string
}

// wakeUp says that there is something to send. It never blocks: a token that is there already stands for all.
func (st *stream) wakeUp(now time.Time) {
	st.mu.Lock()
	if st.since.IsZero() {
		st.since = now
	}
	st.mu.Unlock()
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// takeSince returns when the oldest publication came that the stream now takes up; zero if there is none.
func (st *stream) takeSince() time.Time {
	st.mu.Lock()
	defer st.mu.Unlock()
	since := st.since
	st.since = time.Time{}
	return since
}

// open authenticates and registers a stream; close undoes it.
func (s *Server) open(ctx context.Context) (*stream, error) {
	peer, err := s.authenticate(ctx)
	if err != nil {
		return nil, err
	}
	st := &stream{
		server: s, peer: peer, connected: s.cfg.Now(), wake: make(chan struct{}, 1),
		keys: map[demanded]struct{}{}, topics: map[*topic]struct{}{},
	}
	s.mu.Lock()
	s.nextID++
	st.id = s.nextID
	s.streams[st] = struct{}{}
	s.mu.Unlock()
	s.cfg.Metrics.connected.Inc()
	return st, nil
}

func (st *stream) close() {
	st.server.mu.Lock()
	delete(st.server.streams, st)
	st.server.mu.Unlock()
	for t := range st.topics {
		t.leave(st)
	}
	st.warming.end()
	st.exit()
	st.server.cfg.Metrics.connected.Dec()
}

// errEnded ends a goroutine whose turn does not come any more.
var errEnded = errors.New("the stream has failed")

// inTurn runs one step of the stream. The first that fails is the last one.
func (st *stream) inTurn(step func() error) error {
	st.turn.Lock()
	defer st.turn.Unlock()
	if st.failed {
		return errEnded
	}
	err := step()
	st.failed = err != nil
	return err
}

// serve takes turns until the stream ends. Requests are handled where they are read: an acknowledgement needs no other goroutine. That
// one ends with the stream's context, which gRPC cancels when the handler returns.
func serve[R any](st *stream, receive func() (R, error), request func(R) error, push func() error) error {
	ended := make(chan error, 1)
	go func() {
		for {
			r, err := receive()
			if err == nil {
				err = st.inTurn(func() error { return request(r) })
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	for {
		select {
		case <-st.wake:
			if err := st.inTurn(push); err != nil && !errors.Is(err, errEnded) {
				return endOf(err)
			}
		case err := <-ended:
			return endOf(err)
		}
	}
}

// endOf turns the end of a stream into the handler's result.
func endOf(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// messenger is the part of a gRPC stream that writes.
type messenger interface{ SendMsg(m any) error }

// identify takes the node of a stream's first request.
func (st *stream) identify(node *corev3.Node, check func(*corev3.Node, Peer) error) error {
	if st.node != nil {
		return nil
	}
	if err := check(node, st.peer); err != nil {
		return err
	}
	st.mu.Lock()
	st.node = node
	st.mu.Unlock()
	st.server.cfg.Log.Info("xds client connected", "node", node.GetId(), "connection", st.id)
	return nil
}

func (st *stream) rejected(typeURL string, nack *delta.Nack) {
	st.server.cfg.Metrics.rejected(typeURL, st.node.GetId())
	st.server.cfg.Log.Warn("xds client rejected resources; it keeps what it had",
		"node", st.node.GetId(), "type", typeURL, "nonce", nack.Nonce, "error", nack.Message)
}

// record publishes the state of a subscription for Clients.
func (st *stream) record(last *TypeStatus, s delta.Status, sent, answered bool) {
	if !sent && !answered {
		return
	}
	now := st.server.cfg.Now()
	if sent {
		last.SentTime = now
	}
	if answered {
		last.AnsweredTime = now
	}
	last.Sent, last.Acked, last.Nacks, last.LastError = s.Sent, s.Acked, s.Nacks, s.LastError
	st.publishStatus(*last)
}

func (st *stream) publishStatus(now TypeStatus) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if at := slices.IndexFunc(st.status, func(t TypeStatus) bool { return t.TypeURL == now.TypeURL }); at >= 0 {
		st.status[at] = now
		return
	}
	st.status = append(st.status, now)
}
