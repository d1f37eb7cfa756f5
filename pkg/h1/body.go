package h1

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

type bodyKind uint8

const (
	bodyNone    bodyKind = iota
	bodyLength           // content-length
	bodyChunked          // transfer-encoding: chunked
	bodyClose            // until the connection ends
)

type chunkState uint8

const (
	chunkSize chunkState = iota // before a size line
	chunkData
	chunkEnd // before the CRLF after the data
	chunkTrailer
)

const (
	// maxChunkLine bounds a size line with its extensions, maxChunkWaste the extensions of a message: bytes that mean nothing.
	maxChunkLine  = 1 << 10
	maxChunkWaste = 16 << 10
)

// body reads the body of a message. It belongs to the goroutine that reads.
type body struct {
	in         *input
	kind       bodyKind
	state      chunkState
	left       int64       // of the body or of the chunk
	err        error       // set when no more comes; io.EOF is the end
	ended      atomic.Bool // err is io.EOF; for other goroutines
	waste      int
	trailer    httpmsg.Header
	fields     int // of the trailer
	fieldBytes int

	maxFields, maxBytes int
}

// reset begins the body of another message.
func (b *body) reset(kind bodyKind, length int64) {
	b.kind, b.state, b.left, b.err, b.waste, b.fields, b.fieldBytes = kind, chunkSize, length, nil, 0, 0, 0
	b.trailer.Reset()
	b.ended.Store(false)
	switch {
	case kind == bodyNone || kind == bodyLength && length == 0:
		b.end(io.EOF)
	case kind == bodyChunked:
		b.left = 0
	}
}

// Read implements io.Reader. It returns io.EOF together with the last bytes when it knows.
func (b *body) Read(p []byte) (n int, err error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	switch b.kind {
	case bodyLength:
		n, err = b.in.take(p, b.left)
		if b.left -= int64(n); b.left == 0 {
			err = io.EOF
		} else if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
	case bodyChunked:
		n, err = b.readChunked(p)
	case bodyClose:
		n, err = b.in.take(p, 1<<62)
	}
	if err != nil {
		b.end(err)
	}
	return n, err
}

func (b *body) end(err error) {
	b.err = err
	if errors.Is(err, io.EOF) {
		b.ended.Store(true)
	}
}

func (b *body) readChunked(p []byte) (n int, err error) {
	for err == nil {
		if b.state != chunkData {
			err = b.advance(true)
			continue
		}
		n, err = b.in.take(p, b.left)
		if b.left -= int64(n); b.left == 0 {
			b.state = chunkEnd
		}
		if n > 0 {
			return n, b.advance(false)
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
	}
	return 0, err
}

// advance goes on to the next data or to the end of the body (io.EOF). Unless it may wait, it stops where the buffer does.
func (b *body) advance(wait bool) error {
	for b.state != chunkData {
		line, err := b.line(wait)
		if line == nil || err != nil {
			return err
		}
		switch b.state {
		case chunkEnd:
			if len(line) > 0 {
				return bad("chunk longer than its size")
			}
			b.state = chunkSize
		case chunkSize:
			err = b.size(line)
		default:
			err = b.trailerLine(line)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// line returns the next line without its CRLF, not nil; nil when it is not there yet and we may not wait. It is valid until the
// next call.
func (b *body) line(wait bool) ([]byte, error) {
	in := b.in
	limit := maxChunkLine
	if b.state == chunkTrailer {
		limit = b.maxBytes
	}
	scanned := 0
	for {
		n := bytes.IndexByte(in.buf[in.r+scanned:in.w], '\n')
		if n >= 0 {
			n += scanned
			line := in.buf[in.r : in.r+n+1]
			if n == 0 || line[n-1] != '\r' {
				return nil, bad("line of a chunked body does not end in CRLF")
			}
			in.r += n + 1
			return line[: n-1 : n], nil
		}
		if scanned = in.w - in.r; scanned > limit {
			return nil, bad("line of a chunked body too long")
		}
		if b.state == chunkEnd && scanned > 1 {
			return nil, bad("chunk longer than its size")
		}
		if !wait {
			return nil, nil
		}
		if err := in.fill(); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// size reads a chunk's size line: hexadecimal digits, and extensions, which are dropped.
func (b *body) size(line []byte) error {
	var n int64
	i := 0
	for ; i < len(line); i++ {
		d := hexDigit(line[i])
		if d < 0 {
			break
		}
		if i == 15 {
			return bad("chunk too large")
		}
		n = n<<4 | int64(d)
	}
	rest := line[i:]
	if i == 0 || len(rest) > 0 && rest[0] != ';' || !validValue(rest) {
		return bad("malformed chunk size")
	}
	if b.waste += len(rest); b.waste > maxChunkWaste {
		return bad("too many chunk extensions")
	}
	b.left, b.state = n, chunkData
	if n == 0 {
		b.state = chunkTrailer
	}
	return nil
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// trailerLine takes one line of the trailer section. What frames a message or routes it has no say there.
func (b *body) trailerLine(line []byte) error {
	if len(line) == 0 {
		return io.EOF
	}
	b.fields++
	if b.fieldBytes += len(line); b.fields > b.maxFields || b.fieldBytes > b.maxBytes {
		return &Error{431, "trailers too large"}
	}
	key, value, err := splitField(bytes.Clone(line))
	if err != nil {
		return err
	}
	if !framingField(key) {
		b.trailer.Add(key, value)
	}
	return nil
}

// framingField is whether the codec makes this field itself and takes it from nobody.
func framingField(key string) bool {
	switch key {
	case "host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "content-length", "upgrade", "http2-settings":
		return true
	}
	return false
}

// Trailer implements [httpmsg.Incoming].
func (b *body) Trailer() *httpmsg.Header {
	if b.trailer.Len() == 0 {
		return nil
	}
	return &b.trailer
}

// Ended implements [httpmsg.Incoming].
func (b *body) Ended() bool { return b.ended.Load() }

// Buffered is how many bytes Read can return without waiting, as far as that is certain.
func (b *body) Buffered() int {
	if b.kind == bodyChunked && b.state != chunkData || b.err != nil {
		return 0
	}
	n := b.in.w - b.in.r
	if b.kind != bodyClose {
		n = int(min(int64(n), b.left))
	}
	return n
}

// discard reads what is left of the body if that is at most limit bytes, and tells whether the end was reached.
func (b *body) discard(limit int64, scratch []byte) bool {
	if b.kind == bodyLength && b.left > limit {
		return b.Ended()
	}
	for b.err == nil && limit > 0 {
		n, _ := b.Read(scratch)
		limit -= int64(n)
	}
	return b.Ended()
}
