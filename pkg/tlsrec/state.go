package tlsrec

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// stateVersion is the form of an encoded State. A reader refuses others: whoever hands over then drains instead.
const stateVersion = 1

// kernelVersion is the form of one whose records the kernel seals, which is the same. A build that does not know of that would seal them
// twice: it refuses them.
const kernelVersion = 2

// State is a live connection without its socket: keys, sequence numbers and what is under way. Nothing prints it; whoever needs
// its bytes asks for them by [State.Append].
type State struct {
	// reveal returns what is inside. As a function it is closed to everything that prints or walks values.
	reveal func() *live
}

// live is what a State holds.
type live struct {
	client   bool
	suite    uint16
	in, out  half
	waiting  []byte // data opened, not read yet
	sealed   []byte // records read, not opened yet
	unsent   []byte // records sealed, not sent yet
	message  [headLen]byte
	have     byte
	skip     uint32
	owed     bool // a KeyUpdate
	kernel   bool // the kernel seals, and has the keys of out: unsent is data
	protocol string
	server   string
	peer     [][]byte // certificates, leaf first
}

// half is one direction; without a secret it has ended by close_notify.
type half struct {
	secret []byte
	seq    uint64
}

const redacted = "TLS state (redacted)"

// String hides what is inside.
func (State) String() string { return redacted }

// Format implements fmt.Formatter for all verbs.
func (State) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer.
func (State) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps encoders out.
func (State) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// GobEncode keeps encoders out.
func (State) GobEncode() ([]byte, error) {
	return nil, errors.New("a TLS state is not to be encoded; see Append")
}

// Export takes the live state out of c, which is of no use after that: its keys are erased; the socket is left open. No Read may
// be in progress: a deadline ends one without loss. An error leaves c as it was.
func (c *Conn) Export() (*State, error) {
	c.rx.mu.Lock()
	defer c.rx.mu.Unlock()
	c.tx.mu.Lock()
	defer c.tx.mu.Unlock()
	rx, tx := &c.rx, &c.tx
	switch {
	case c.closed.Load() || c.alertOwed.Load() != 0:
		return nil, fmt.Errorf("export a TLS connection: %w", net.ErrClosed)
	case rx.err != nil && !errors.Is(rx.err, io.EOF):
		return nil, fmt.Errorf("export a TLS connection that has failed: %w", rx.err)
	case tx.err != nil && !errors.Is(tx.err, errCloseSent):
		return nil, fmt.Errorf("export a TLS connection that has failed: %w", tx.err)
	}
	l := &live{
		client: c.client, suite: c.state.CipherSuite, in: rx.keys.half(), out: tx.keys.half(),
		waiting: clone(rx.data), sealed: clone(rx.buf[rx.r:rx.w]), unsent: clone(tx.unsent),
		message: rx.message, have: byte(rx.have), skip: uint32(rx.skip), owed: c.updateOwed.Load(), kernel: tx.kernel,
		protocol: c.state.NegotiatedProtocol, server: c.state.ServerName,
	}
	for _, cert := range c.state.PeerCertificates {
		l.peer = append(l.peer, cert.Raw)
	}
	rx.err, tx.err, rx.data = ErrExported, ErrExported, nil
	rx.r, rx.w = 0, 0
	rx.end(ErrExported)
	tx.end(ErrExported)
	return &State{func() *live { return l }}, nil
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }

// half copies what makes a direction.
func (k *keys) half() half { return half{clone(k.secret), k.seq} }

// Erase forgets the keys.
func (s *State) Erase() {
	l := s.reveal()
	clear(l.in.secret)
	clear(l.out.secret)
	l.in, l.out = half{}, half{}
}

// Resume goes on with the connection of s over nc, its socket. s is erased.
func Resume(nc net.Conn, s *State) (*Conn, error) {
	l := s.reveal()
	defer s.Erase()
	known := suiteOf(l.suite)
	if known == nil {
		return nil, fmt.Errorf("resume a TLS connection: cipher suite %#x is not known", l.suite)
	}
	state := tls.ConnectionState{
		Version: tls.VersionTLS13, HandshakeComplete: true, CipherSuite: l.suite, NegotiatedProtocol: l.protocol, ServerName: l.server,
	}
	for _, der := range l.peer {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("resume a TLS connection: the peer's certificate: %w", err)
		}
		state.PeerCertificates = append(state.PeerCertificates, cert)
	}
	in, inEnded, err := l.in.keys(known)
	if err != nil {
		return nil, fmt.Errorf("resume a TLS connection: %w", err)
	}
	out, outEnded, err := l.out.keys(known)
	if err != nil {
		return nil, fmt.Errorf("resume a TLS connection: %w", err)
	}
	c := newConn(nc, l.client, state, in, out)
	rx := &c.rx
	if inEnded {
		rx.err = io.EOF
	}
	if outEnded {
		c.tx.err = errCloseSent
	}
	if err := c.checkKernel(l.kernel, outEnded); err != nil {
		in.erase()
		out.erase()
		return nil, fmt.Errorf("resume a TLS connection: %w", err)
	}
	c.tx.kernel = l.kernel
	rx.message, rx.have, rx.skip = l.message, int(l.have), int(l.skip)
	rx.data, c.tx.unsent = l.waiting, l.unsent
	if len(l.sealed) > 0 {
		rx.buf = netx.Pool.Get(max(len(l.sealed), netx.MediumBuffer))
		rx.w = copy(rx.buf, l.sealed)
	}
	c.updateOwed.Store(l.owed)
	return c, nil
}

// Restore takes back into c what Export took out of it, when nobody else goes on with it. s is erased.
func (c *Conn) Restore(s *State) error {
	again, err := Resume(c.nc, s)
	if err != nil {
		return err
	}
	c.rx.mu.Lock()
	defer c.rx.mu.Unlock()
	c.tx.mu.Lock()
	defer c.tx.mu.Unlock()
	if !errors.Is(c.rx.err, ErrExported) || c.closed.Load() {
		again.rx.keys.erase()
		again.tx.keys.erase()
		return fmt.Errorf("restore a TLS connection: %w", net.ErrClosed)
	}
	rx, from := &c.rx, &again.rx
	rx.release()
	rx.keys, rx.err, rx.data, rx.buf, rx.r, rx.w = from.keys, from.err, from.data, from.buf, from.r, from.w
	rx.message, rx.have, rx.skip = from.message, from.have, from.skip
	c.tx.keys, c.tx.err, c.tx.unsent = again.tx.keys, again.tx.err, again.tx.unsent
	c.updateOwed.Store(again.updateOwed.Load())
	return nil
}

// keys starts from what was exported; the state keeps its own copy.
func (h half) keys(s *suite) (k *keys, ended bool, err error) {
	if len(h.secret) == 0 {
		return &keys{suite: s}, true, nil
	}
	k, err = newKeys(s, clone(h.secret), h.seq)
	return k, false, err
}

// Append appends the state, keys included, in a form that [ParseState] reads: for a channel to a successor, and nothing else.
func (s *State) Append(b []byte) []byte {
	l := s.reveal()
	version := byte(stateVersion)
	if l.kernel {
		version = kernelVersion
	}
	b = append(b, version, flag(l.client), flag(l.owed), l.have)
	b = binary.BigEndian.AppendUint16(b, l.suite)
	b = binary.BigEndian.AppendUint32(b, l.skip)
	b = append(b, l.message[:]...)
	b = binary.BigEndian.AppendUint64(b, l.in.seq)
	b = binary.BigEndian.AppendUint64(b, l.out.seq)
	fields := [][]byte{l.in.secret, l.out.secret, l.waiting, l.sealed, l.unsent, []byte(l.protocol), []byte(l.server)}
	for _, field := range append(fields, l.peer...) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(field)))
		b = append(b, field...)
	}
	return b
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

// fixedState is the size of what precedes the fields of an encoded state.
const fixedState = 4 + 2 + 4 + headLen + 8 + 8

// ParseState reads what Append has written. It keeps no part of b, which the caller clears.
func ParseState(b []byte) (*State, error) {
	if len(b) < fixedState || b[0] != stateVersion && b[0] != kernelVersion {
		return nil, errors.New("a TLS state of another version")
	}
	l := &live{kernel: b[0] == kernelVersion, client: b[1] == 1, owed: b[2] == 1, have: b[3], suite: binary.BigEndian.Uint16(b[4:]), skip: binary.BigEndian.Uint32(b[6:])}
	copy(l.message[:], b[10:])
	l.in.seq, l.out.seq = binary.BigEndian.Uint64(b[10+headLen:]), binary.BigEndian.Uint64(b[18+headLen:])
	b = b[fixedState:]
	var fields [][]byte
	for len(b) > 0 {
		if len(b) < 4 || uint64(len(b)-4) < uint64(binary.BigEndian.Uint32(b)) {
			return nil, errors.New("a TLS state that is cut short")
		}
		n := binary.BigEndian.Uint32(b)
		fields = append(fields, clone(b[4:4+n]))
		b = b[4+n:]
	}
	if len(fields) < 7 || int(l.have) >= headLen || l.skip > maxTicket {
		return nil, errors.New("a TLS state that makes no sense")
	}
	l.in.secret, l.out.secret, l.waiting, l.sealed, l.unsent = fields[0], fields[1], fields[2], fields[3], fields[4]
	l.protocol, l.server, l.peer = string(fields[5]), string(fields[6]), fields[7:]
	return &State{func() *live { return l }}, nil
}
