package hbone

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/pack"
	"github.com/isthmus-mesh/isthmus/pkg/tlsrec"
)

// stateVersion is the form of an encoded State. A reader refuses others: whoever hands over then drains instead.
const stateVersion = 1

// State is a live connection without its socket. Nothing prints it; whoever needs its bytes asks for them by [State.Append].
type State struct {
	// reveal returns what is inside. As a function it is closed to everything that prints or walks values.
	reveal func() *frozen
}

// frozen is what a State holds.
type frozen struct {
	client     bool
	tls        *tlsrec.State
	reader     h2.ReaderState
	table      []h2.HeaderField
	tableLimit int
	peer       h2.Settings
	settled    bool
	lastID     uint32
	goAway     bool
	goAwayN    uint32
	send       int64
	recv       h2.WindowState
	deferred   int64
	out        []byte
	streams    []frozenStream
}

type frozenStream struct {
	id                                     uint32
	send                                   int64
	recv                                   h2.WindowState
	localEnded, remoteEnded, answered, eof bool
	queue                                  []byte
}

// errEnded is what sending answers on a stream whose end was sent.
var errEnded = net.ErrClosed

const redacted = "HBONE state (redacted)"

// String hides what is inside.
func (State) String() string { return redacted }

// Format implements fmt.Formatter for all verbs.
func (State) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer.
func (State) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps encoders out.
func (State) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Erase forgets the keys and what was under way.
func (s *State) Erase() {
	f := s.reveal()
	f.tls.Erase()
	clear(f.reader.Unread)
	clear(f.out)
	for i := range f.streams {
		clear(f.streams[i].queue)
	}
}

// Client says in which role the connection is.
func (s *State) Client() bool { return s.reveal().client }

// StreamIDs lists the streams, in the order of the ones that resuming returns.
func (s *State) StreamIDs() []uint32 {
	var ids []uint32
	for _, st := range s.reveal().streams {
		ids = append(ids, st.id)
	}
	return ids
}

// Encode returns the state, keys included, in a form that [ParseState] reads: for a channel to a successor, and nothing else. The
// caller clears it.
func (s *State) Encode() []byte {
	f := s.reveal()
	var w pack.Writer
	w.Uint(stateVersion)
	w.Bool(f.client)
	tls := f.tls.Append(nil)
	w.Bytes(tls)
	clear(tls)
	encodeReader(&w, &f.reader)
	w.Uint(uint64(f.tableLimit))
	w.Uint(uint64(len(f.table)))
	for _, e := range f.table {
		w.Text(e.Name)
		w.Text(e.Value)
	}
	encodeSettings(&w, &f.peer)
	w.Bool(f.settled)
	w.Uint(uint64(f.lastID))
	w.Bool(f.goAway)
	w.Uint(uint64(f.goAwayN))
	w.Int(f.send)
	encodeWindow(&w, f.recv)
	w.Int(f.deferred)
	w.Bytes(f.out)
	w.Uint(uint64(len(f.streams)))
	for i := range f.streams {
		st := &f.streams[i]
		w.Uint(uint64(st.id))
		w.Int(st.send)
		encodeWindow(&w, st.recv)
		for _, v := range []bool{st.localEnded, st.remoteEnded, st.answered, st.eof} {
			w.Bool(v)
		}
		w.Bytes(st.queue)
	}
	return w.Finish()
}

func encodeReader(w *pack.Writer, r *h2.ReaderState) {
	w.Bytes(r.Unread)
	w.Bool(r.Settled)
	w.Uint(uint64(r.Skip))
	w.Bool(r.InData)
	w.Bool(r.First)
	w.Uint(uint64(r.Data.Length))
	w.Uint(uint64(r.Data.Type))
	w.Uint(uint64(r.Data.Flags))
	w.Uint(uint64(r.Data.StreamID))
	w.Uint(uint64(r.Left))
	w.Uint(uint64(r.Padding))
}

func encodeSettings(w *pack.Writer, s *h2.Settings) {
	w.Uint(uint64(s.HeaderTableSize))
	w.Bool(s.EnablePush)
	w.Uint(uint64(s.MaxConcurrentStreams))
	w.Uint(uint64(s.InitialWindowSize))
	w.Uint(uint64(s.MaxFrameSize))
	w.Uint(uint64(s.MaxHeaderListSize))
	w.Bool(s.EnableConnect)
}

func encodeWindow(w *pack.Writer, s h2.WindowState) {
	w.Int(s.Available)
	w.Int(s.Owed)
}

// The bounds of what a state may say.
const (
	max31 = 1<<31 - 1
	max32 = 1<<32 - 1
)

// ParseState reads what Encode has written. It keeps no part of b, which the caller clears.
func ParseState(b []byte) (*State, error) {
	r := pack.NewReader(b)
	if r.Uint(max31) != stateVersion || r.Err() != nil {
		return nil, errors.New("an HBONE state of another version")
	}
	f := &frozen{client: r.Bool()}
	sealed := r.Borrow()
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("an HBONE state: %w", err)
	}
	var err error
	if f.tls, err = tlsrec.ParseState(sealed); err != nil {
		return nil, err
	}
	f.reader = decodeReader(r)
	f.tableLimit = int(r.Uint(max31))
	for range r.Count() {
		f.table = append(f.table, h2.HeaderField{Name: r.Text(), Value: r.Text()})
		if r.Err() != nil {
			break
		}
	}
	f.peer = decodeSettings(r)
	f.settled = r.Bool()
	f.lastID = uint32(r.Uint(max31))
	f.goAway = r.Bool()
	f.goAwayN = uint32(r.Uint(max31))
	f.send = r.Int()
	f.recv = decodeWindow(r)
	f.deferred = r.Int()
	f.out = r.Bytes()
	for range r.Count() {
		st := frozenStream{id: uint32(r.Uint(max31)), send: r.Int(), recv: decodeWindow(r)}
		for _, v := range []*bool{&st.localEnded, &st.remoteEnded, &st.answered, &st.eof} {
			*v = r.Bool()
		}
		st.queue = r.Bytes()
		if f.streams = append(f.streams, st); r.Err() != nil {
			break
		}
	}
	s := &State{func() *frozen { return f }}
	if err := r.End(); err != nil {
		s.Erase()
		return nil, fmt.Errorf("an HBONE state: %w", err)
	}
	if f.deferred < 0 || f.peer.InitialWindowSize > h2.MaxWindow || f.peer.MaxFrameSize < h2.MinMaxFrameSize || f.peer.MaxFrameSize > h2.MaxMaxFrameSize {
		s.Erase()
		return nil, errors.New("an HBONE state that makes no sense")
	}
	return s, nil
}

func decodeReader(r *pack.Reader) h2.ReaderState {
	s := h2.ReaderState{Unread: r.Bytes(), Settled: r.Bool(), Skip: int(r.Uint(max31)), InData: r.Bool(), First: r.Bool()}
	s.Data = h2.FrameHeader{
		Length: uint32(r.Uint(h2.MaxMaxFrameSize)), Type: h2.FrameType(r.Uint(255)), Flags: h2.Flags(r.Uint(255)), StreamID: uint32(r.Uint(max31)),
	}
	s.Left, s.Padding = int(r.Uint(max31)), int(r.Uint(max31))
	return s
}

func decodeSettings(r *pack.Reader) h2.Settings {
	return h2.Settings{
		HeaderTableSize: uint32(r.Uint(max32)), EnablePush: r.Bool(), MaxConcurrentStreams: uint32(r.Uint(max32)),
		InitialWindowSize: uint32(r.Uint(max32)), MaxFrameSize: uint32(r.Uint(max32)), MaxHeaderListSize: uint32(r.Uint(max32)),
		EnableConnect: r.Bool(),
	}
}

func decodeWindow(r *pack.Reader) h2.WindowState {
	return h2.WindowState{Available: r.Int(), Owed: r.Int()}
}
