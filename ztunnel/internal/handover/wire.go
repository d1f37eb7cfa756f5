package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/pack"
)

// The versions of the messages and of what is inside that this build understands. A build that changes either raises MostVersion, and
// records its messages beside the older ones' (testdata here, in proxy and in pkg/hbone); it raises LeastVersion when it does not write
// the form of the older ones any more.
const (
	LeastVersion uint64 = 1
	MostVersion  uint64 = 1
)

// Kind says what a message is.
type kind uint8

const (
	kindHello   kind = 1
	kindOffer   kind = 2
	kindTaken   kind = 3
	kindRefused kind = 4
)

const (
	headLen = 12
	// maxBody bounds a message: a connection with more under way stays where it is.
	maxBody = 32 << 20
	// maxHello bounds what is read of somebody who has not proved anything yet, and a reason.
	maxHello = 4 << 10
	// MaxFiles is how many sockets go with an offer; the kernel allows 253.
	MaxFiles = 250
	magic    = "isthmus ztunnel hand-over"
)

// head precedes every message: kind, a zero, number of sockets, length of the body, number of the offer.
type head struct {
	kind  kind
	files int
	body  int
	id    uint32
}

func (h head) append(b []byte) []byte {
	b = append(b, byte(h.kind), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(h.files))
	b = binary.BigEndian.AppendUint32(b, uint32(h.body))
	return binary.BigEndian.AppendUint32(b, h.id)
}

// parseHead reads a head and refuses what no message has.
func parseHead(b []byte) (head, error) {
	h := head{
		kind: kind(b[0]), files: int(binary.BigEndian.Uint16(b[2:])), body: int(binary.BigEndian.Uint32(b[4:])), id: binary.BigEndian.Uint32(b[8:]),
	}
	limit := maxHello
	switch h.kind {
	case kindOffer:
		limit = maxBody
	case kindHello, kindTaken, kindRefused:
	default:
		return h, fmt.Errorf("a message of unknown kind %d", b[0])
	}
	switch {
	case b[1] != 0:
		return h, errors.New("a message with an unknown flag")
	case h.body > limit:
		return h, fmt.Errorf("a message of %d bytes, of which %d are allowed", h.body, limit)
	case h.files > MaxFiles || h.files > 0 && h.kind != kindOffer:
		return h, fmt.Errorf("a message with %d sockets", h.files)
	}
	return h, nil
}

// Self is what one instance says of itself, and expects of the other.
type Self struct {
	// Node, Cluster and TrustDomain must be the same on both sides.
	Node, Cluster, TrustDomain string
	// Build is for the log.
	Build string
	// Least and Most are the versions understood; zero is this build's.
	Least, Most uint64
}

func (s Self) withDefaults() Self {
	if s.Most == 0 {
		s.Least, s.Most = LeastVersion, MostVersion
	}
	return s
}

func (s Self) encode(boot string) []byte {
	var w pack.Writer
	w.Text(magic)
	w.Uint(s.Least)
	w.Uint(s.Most)
	for _, text := range []string{s.Node, s.Cluster, s.TrustDomain, boot, s.Build} {
		w.Text(text)
	}
	return w.Finish()
}

// meet reads the other's greeting and returns the version to use. What follows the versions may differ between versions that have
// nothing in common: those are compared first.
func (s Self) meet(greeting []byte, boot string) (version uint64, err error) {
	r := pack.NewReader(greeting)
	if r.Text() != magic {
		return 0, errors.New("the other side does not speak this protocol")
	}
	least, most := r.Uint(1<<32), r.Uint(1<<32)
	if r.Err() != nil || least > most {
		return 0, errors.New("a greeting without versions")
	}
	if version = min(s.Most, most); version < max(s.Least, least) {
		return 0, fmt.Errorf("this side understands versions %d to %d, the other %d to %d", s.Least, s.Most, least, most)
	}
	for _, same := range []struct{ what, own string }{
		{"node", s.Node}, {"cluster", s.Cluster}, {"trust domain", s.TrustDomain}, {"boot", boot},
	} {
		if other := r.Text(); r.Err() == nil && other != same.own {
			return 0, fmt.Errorf("the other side's %s is %q, not %q", same.what, other, same.own)
		}
	}
	_ = r.Text() // the build
	return version, r.Err()
}

// channel sends and receives messages; one goroutine at a time.
type channel struct{ conn *net.UnixConn }

// send sends one message with the sockets fds. The kernel's copy is the only one it makes.
func (c channel) send(h head, body []byte, fds []int, deadline time.Time) error {
	if err := c.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	h.body, h.files = len(body), len(fds)
	start := h.append(make([]byte, 0, headLen))
	var rights []byte
	if len(fds) > 0 {
		rights = syscall.UnixRights(fds...)
	}
	n, _, err := c.conn.WriteMsgUnix(start, rights, nil)
	if err == nil && n < len(start) {
		_, err = c.conn.Write(start[n:])
	}
	if err == nil && len(body) > 0 {
		_, err = c.conn.Write(body)
	}
	return err
}

// receive returns the next message. The caller owns the files, and clears the body.
func (c channel) receive(deadline time.Time) (h head, body []byte, files []*os.File, err error) {
	if err := c.conn.SetReadDeadline(deadline); err != nil {
		return h, nil, nil, err
	}
	fail := func(err error) (head, []byte, []*os.File, error) {
		netx.CloseFiles(files)
		clear(body)
		return h, nil, nil, err
	}
	var start [headLen]byte
	for got := 0; got < headLen; {
		n, more, err := c.read(start[got:])
		files = append(files, more...)
		if err != nil {
			if got > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fail(err)
		}
		got += n
	}
	if h, err = parseHead(start[:]); err != nil {
		return fail(err)
	}
	for len(body) < h.body { // memory grows with what comes, not with what is announced
		chunk := min(h.body-len(body), max(64<<10, len(body)))
		bigger := make([]byte, len(body)+chunk)
		have := copy(bigger, body)
		clear(body)
		body = bigger
		for have < len(body) {
			n, more, err := c.read(body[have:])
			files = append(files, more...)
			if err != nil {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return fail(err)
			}
			have += n
		}
	}
	if len(files) != h.files {
		return fail(fmt.Errorf("%d sockets came, %d were announced", len(files), h.files))
	}
	return h, body, files, nil
}

// read reads bytes and the sockets that come with them.
func (c channel) read(b []byte) (int, []*os.File, error) {
	n, flags, files, err := netx.ReceiveFiles(c.conn, b, MaxFiles+4, "socket")
	switch {
	case err != nil:
	case flags&syscall.MSG_CTRUNC != 0:
		err = errors.New("more sockets than belong to a message, or than this process may open")
	case n == 0:
		err = io.EOF
	}
	if err != nil {
		netx.CloseFiles(files)
		return 0, nil, err
	}
	return n, files, nil
}
