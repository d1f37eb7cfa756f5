package wiretap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// Watch looks at segments one after the other, in the order of the capture, and keeps none: for captures that are too long to be
// read at once. What goes to or comes from one port must be records of TLS 1.3 from the first byte to the last.
type Watch struct {
	port     uint16
	secrets  [][]byte
	ways     map[[2]netip.AddrPort]*way
	findings Findings
}

// Findings are what an eavesdropper has learnt so far.
type Findings struct {
	// Tunnelled are bytes in whole records on the port; Elsewhere those on other connections, by the lower of the two ports.
	Tunnelled int
	Elsewhere map[uint16]int
	// Versions counts the ServerHello messages by the version that they chose.
	Versions map[uint16]int
	// Readable are the secrets that crossed in the clear, anywhere.
	Readable []string
	// Foreign is what was on the port and was no record of TLS 1.3, each connection's first.
	Foreign []string
	// Lost are directions of connections of which the capture misses a part: what follows in them was searched, and not taken apart.
	Lost int
}

// Total is how many bytes have crossed.
func (f Findings) Total() int {
	n := f.Tunnelled
	for _, beside := range f.Elsewhere {
		n += beside
	}
	return n
}

// The types of records, RFC 8446 section 5.1.
const (
	recordChangeCipher = 20
	recordAlert        = 21
	recordHandshake    = 22
	recordData         = 23

	recordHead = 5
	maxRecord  = 1<<14 + 256
	// maxHeld bounds the segments that wait for one before them.
	maxHeld = 256
)

// way is one direction of a connection.
type way struct {
	tail   []byte // the end of what went by, for secrets in two segments
	begun  bool
	blind  bool // not taken apart any more
	next   uint32
	held   map[uint32][]byte
	head   []byte // of the record that goes by, as far as it is there
	left   int    // bytes that it still has
	sealed bool   // there was application data: no handshake follows in the clear
}

// NewWatch takes secrets that must not be readable.
func NewWatch(port uint16, secrets ...string) *Watch {
	w := &Watch{port: port, ways: map[[2]netip.AddrPort]*way{}, findings: Findings{Elsewhere: map[uint16]int{}, Versions: map[uint16]int{}}}
	for _, s := range secrets {
		w.secrets = append(w.secrets, []byte(s))
	}
	return w
}

// Findings returns what has been found so far.
func (w *Watch) Findings() Findings {
	f := w.findings
	f.Elsewhere, f.Versions = map[uint16]int{}, map[uint16]int{}
	for port, n := range w.findings.Elsewhere {
		f.Elsewhere[port] = n
	}
	for version, n := range w.findings.Versions {
		f.Versions[version] = n
	}
	f.Readable, f.Foreign = slices.Clone(f.Readable), slices.Clone(f.Foreign)
	return f
}

// See takes the next segment.
func (w *Watch) See(s Segment) {
	ends := [2]netip.AddrPort{s.Source, s.Destination}
	d := w.ways[ends]
	if d == nil {
		d = &way{held: map[uint32][]byte{}}
		w.ways[ends] = d
	}
	w.search(d, s.Payload)
	if s.Source.Port() != w.port && s.Destination.Port() != w.port {
		w.findings.Elsewhere[min(s.Source.Port(), s.Destination.Port())] += len(s.Payload)
		return
	}
	if s.Source.Port() == w.port {
		if version, ok := serverHelloVersion(s.Payload); ok {
			w.findings.Versions[version]++
		}
	}
	w.order(d, s)
}

func (w *Watch) search(d *way, payload []byte) {
	joined := append(d.tail, payload...)
	longest := 0
	for _, secret := range w.secrets {
		longest = max(longest, len(secret))
		if bytes.Contains(joined, secret) && !slices.Contains(w.findings.Readable, string(secret)) {
			w.findings.Readable = append(w.findings.Readable, string(secret))
		}
	}
	d.tail = slices.Clone(joined[max(0, len(joined)-longest+1):])
}

// order gives the bytes of a direction to records, each once, in the order in which they were sent.
func (w *Watch) order(d *way, s Segment) {
	if d.blind {
		return
	}
	if !d.begun {
		d.begun, d.next = true, s.Sequence
	}
	d.held[s.Sequence] = s.Payload
	for d.takeNext(func(p []byte) bool { return w.records(d, s, p) }) {
	}
	if len(d.held) > maxHeld && !d.blind {
		d.blind = true
		w.findings.Lost++
	}
	if d.blind {
		clear(d.held)
	}
}

// takeNext finds what comes next among what is held; false is none.
func (d *way) takeNext(take func([]byte) bool) bool {
	for at, payload := range d.held {
		done := int32(d.next - at) // how much of it went by before
		if done < 0 {
			continue
		}
		delete(d.held, at)
		if int(done) >= len(payload) {
			return true // sent again
		}
		payload = payload[done:]
		d.next += uint32(len(payload))
		if !take(payload) {
			d.blind = true
		}
		return !d.blind
	}
	return false
}

// records takes bytes apart; false says that they are no records.
func (w *Watch) records(d *way, s Segment, p []byte) bool {
	for len(p) > 0 {
		if d.left > 0 {
			n := min(d.left, len(p))
			d.left -= n
			w.findings.Tunnelled += n
			p = p[n:]
			continue
		}
		n := min(recordHead-len(d.head), len(p))
		d.head = append(d.head, p[:n]...)
		p = p[n:]
		if len(d.head) < recordHead {
			return true
		}
		if !d.record() {
			w.findings.Foreign = append(w.findings.Foreign, fmt.Sprintf("%s → %s: %x", s.Source, s.Destination, d.head))
			return false
		}
		w.findings.Tunnelled += recordHead
		d.head = d.head[:0]
	}
	return true
}

// record judges the head of a record.
func (d *way) record() bool {
	kind, version, length := d.head[0], binary.BigEndian.Uint16(d.head[1:]), int(binary.BigEndian.Uint16(d.head[3:]))
	if version != 0x0301 && version != 0x0303 || length == 0 || length > maxRecord {
		return false
	}
	switch kind {
	case recordData:
		d.sealed = true
	case recordHandshake, recordAlert, recordChangeCipher:
		if d.sealed {
			return false
		}
	default:
		return false
	}
	d.left = length
	return true
}
