package h2

import (
	"errors"
	"io"
)

// Limits bound what a Reader buffers and accepts.
type Limits struct {
	MaxFrameSize   uint32 // as announced; default MinMaxFrameSize
	MaxHeaderBlock int    // compressed bytes of one header block; default 16384
}

const (
	// readSize takes a whole TLS record, plus a frame head left over from the last one.
	readSize = 16<<10 + 512
	// idleSize is read into while nothing comes: enough for control frames, small enough to keep.
	idleSize = 512
	// maxWhole bounds frames that are buffered whole, except header blocks.
	maxWhole = 4 << 10
	// maxContinuations bounds the frames of one header block (CONTINUATION flood, CVE-2023-45288).
	maxContinuations = 32
)

// Frame is one frame, or a piece of a DATA frame.
type Frame struct {
	FrameHeader
	// Payload is valid until the next call. DATA: the bytes that are there so far, without padding.
	// HEADERS: the whole header block, CONTINUATION frames joined, without padding and priority.
	// Others: the payload (GOAWAY without the end of long debug data).
	Payload []byte
	// First and Last mark the pieces of a DATA frame: flow control counts Length on the first,
	// END_STREAM takes effect with the last. Other frames have both set.
	First, Last bool
	// Padding is how many bytes of Length are padding or its length octet (DATA only).
	Padding int
	// Dependency is the stream that a HEADERS frame with FlagPriority names: of no use, but it must not be its own.
	Dependency uint32
}

// EndStream reports whether the peer sends no more on the stream after this frame or piece.
func (f *Frame) EndStream() bool {
	return f.Last && (f.Type == FrameData || f.Type == FrameHeaders) && f.Flags.Has(FlagEndStream)
}

// Reader splits a byte stream into frames and enforces everything that can be known without stream state.
// DATA is handed on in pieces as it arrives, straight from the read buffer. Not safe for concurrent use.
type Reader struct {
	// OnIdle, if set, is called when the source's read deadline passed; true goes on reading with the
	// small buffer (OnIdle has cleared the deadline), false fails with the timeout.
	OnIdle func() bool
	// OnWait, if set, is called before the Reader reads on, since what was read has been handed on, but for the beginning of a frame. Not
	// for a ChunkSource.
	OnWait func()
	// OnBlock, if set, is called with true when a header block has begun of which not all was read yet, and with false at the end of
	// such a block.
	OnBlock func(waits bool)

	reuse  func() // see OnReuse; may be nil
	src    io.Reader
	chunks ChunkSource // src, if it is one
	lender LentSource  // likewise
	limits Limits
	pool   BufferPool

	buf  []byte // nil, idle, a pooled buffer or a chunk
	r, w int
	idle []byte // of idleSize; made when it is needed

	next   []byte // the rest of a chunk whose beginning was joined with the end of the one before
	joined []byte // pooled buffer in which they were joined

	data    FrameHeader // DATA frame being handed on in pieces
	left    int         // its payload not handed on yet, padding excluded
	padding int         // bytes to skip after left
	skip    int         // bytes of an uninteresting payload to skip
	inData  bool
	first   bool

	block      []byte // header block being joined
	blockHead  FrameHeader
	dependency uint32 // of the block being joined
	conts      int
	waits      bool // OnBlock was called with true
	settled    bool // the first frame, which must be SETTINGS, was seen
	at         position
}

// BufferPool lends read buffers. Get returns at least n bytes.
type BufferPool interface {
	Get(n int) []byte
	Put([]byte)
}

// ChunkSource hands out what it has read in memory of its own; a Reader then copies nothing but frames that a boundary cuts.
type ChunkSource interface {
	// Next returns at least one byte, or an error. It is valid until the function that was given to OnReuse is called.
	Next() ([]byte, error)
	// OnReuse sets what is called before memory that Next has returned is used again.
	OnReuse(func())
	// Release gives all memory back; there are no more calls.
	Release()
}

// LentSource needs no memory of its reader's while there is nothing to read: its bytes come in a buffer of the Reader's pool.
type LentSource interface {
	// ReadLent waits for bytes and returns n of them, one at least, in a buffer of size bytes or more; none with an error.
	ReadLent(size int) (b []byte, n int, err error)
}

// NewReader returns a Reader of src, which starts after the client preface.
func NewReader(src io.Reader, limits Limits, pool BufferPool) *Reader {
	if limits.MaxFrameSize == 0 {
		limits.MaxFrameSize = MinMaxFrameSize
	}
	if limits.MaxHeaderBlock == 0 {
		limits.MaxHeaderBlock = 16 << 10
	}
	r := &Reader{src: src, limits: limits, pool: pool}
	r.chunks, _ = src.(ChunkSource)
	r.lender, _ = src.(LentSource)
	return r
}

// OnReuse sets what is called before the payloads of DATA frames that Next has returned become invalid: later than with the next
// call, as long as that needs to read nothing.
func (r *Reader) OnReuse(fn func()) {
	if r.chunks != nil {
		r.chunks.OnReuse(fn)
	}
	r.reuse = fn
}

// Release gives the read buffer back; the Reader must not be used any more.
func (r *Reader) Release() {
	if r.chunks != nil {
		r.parted()
		r.chunks.Release()
		r.buf, r.next = nil, nil
	}
	if len(r.buf) > idleSize {
		r.pool.Put(r.buf)
	}
	r.r, r.w, r.buf, r.block = 0, 0, nil, nil
}

// Buffered returns how many bytes were read and not handed on yet.
func (r *Reader) Buffered() int { return r.w - r.r + len(r.next) }

// Next returns the next frame or DATA piece. After a StreamError reading goes on behind the offending frame;
// any other error is final. io.EOF means that the stream ended between frames.
func (r *Reader) Next() (Frame, error) {
	for {
		if r.at = between; r.inData {
			return r.nextData()
		}
		if r.blockHead.StreamID != 0 {
			r.at = within
		}
		if err := r.skipped(); err != nil {
			return Frame{}, err
		}
		if err := r.need(FrameHeaderLen); err != nil {
			return Frame{}, err
		}
		r.at = within
		h := ParseFrameHeader(r.buf[r.r:])
		r.r += FrameHeaderLen
		if err := r.admit(h); err != nil {
			var se StreamError
			if errors.As(err, &se) {
				r.skip = int(h.Length)
			}
			return Frame{}, err
		}
		switch h.Type {
		case FrameData:
			if err := r.beginData(h); err != nil {
				return Frame{}, err
			}
		case FrameHeaders, FrameContinuation:
			f, done, err := r.headers(h)
			if done || err != nil {
				return f, err
			}
		case FrameSettings, FramePing, FrameGoAway, FrameWindowUpdate, FrameRSTStream, FramePriority:
			return r.whole(h)
		case FramePushPromise:
			return Frame{}, ConnError{ProtocolError, "PUSH_PROMISE though push is off"}
		default:
			r.skip = int(h.Length)
		}
	}
}

// admit applies the rules about frame order.
func (r *Reader) admit(h FrameHeader) error {
	if !r.settled {
		if h.Type != FrameSettings || h.Flags.Has(FlagAck) {
			return ConnError{ProtocolError, "first frame is not SETTINGS"}
		}
		r.settled = true
	}
	if inBlock := r.blockHead.StreamID != 0; inBlock != (h.Type == FrameContinuation) ||
		inBlock && h.StreamID != r.blockHead.StreamID {
		return ConnError{ProtocolError, "CONTINUATION out of place"}
	}
	return h.check(r.limits.MaxFrameSize)
}

// whole returns a frame whose payload fits the buffer.
func (r *Reader) whole(h FrameHeader) (Frame, error) {
	n := int(h.Length)
	if n > maxWhole {
		if h.Type != FrameGoAway {
			return Frame{}, ConnError{EnhanceYourCalm, "control frame too large"}
		}
		r.skip, n = n-maxWhole, maxWhole
	}
	if err := r.need(n); err != nil {
		return Frame{}, unexpected(err)
	}
	f := Frame{FrameHeader: h, Payload: r.buf[r.r : r.r+n], First: true, Last: true}
	r.r += n
	return f, nil
}

func (r *Reader) beginData(h FrameHeader) error {
	r.data, r.left, r.padding, r.inData, r.first = h, int(h.Length), 0, true, true
	if h.Flags.Has(FlagPadded) {
		pad, err := r.padLength(h)
		if err != nil {
			return err
		}
		r.left -= 1 + pad
		r.padding = pad
		if r.left < 0 {
			return ConnError{ProtocolError, "padding longer than the frame"}
		}
	}
	return nil
}

func (r *Reader) padLength(h FrameHeader) (int, error) {
	if h.Length == 0 {
		return 0, ConnError{FrameSizeError, "padded frame without pad length"}
	}
	if err := r.need(1); err != nil {
		return 0, unexpected(err)
	}
	pad := int(r.buf[r.r])
	r.r++
	return pad, nil
}

func (r *Reader) nextData() (Frame, error) {
	if r.left > 0 && r.r == r.w {
		if err := r.fill(1); err != nil {
			return Frame{}, unexpected(err)
		}
	}
	n := min(r.left, r.w-r.r)
	f := Frame{FrameHeader: r.data, Payload: r.buf[r.r : r.r+n], First: r.first}
	if r.data.Flags.Has(FlagPadded) {
		f.Padding = r.padding + 1
	}
	r.r += n
	r.left -= n
	r.first = false
	if r.left == 0 {
		f.Last, r.inData, r.skip = true, false, r.padding
	}
	return f, nil
}

// headers takes one HEADERS or CONTINUATION frame and reports done with the last of a block.
func (r *Reader) headers(h FrameHeader) (f Frame, done bool, err error) {
	n, pad := int(h.Length), 0
	if h.Type == FrameHeaders {
		r.blockHead, r.conts, r.block = h, 0, r.block[:0]
		if r.OnBlock != nil && (!h.Flags.Has(FlagEndHeaders) || r.Buffered() < int(h.Length)) {
			r.waits = true
			r.OnBlock(true)
		}
		if h.Flags.Has(FlagPadded) {
			if pad, err = r.padLength(h); err != nil {
				return f, false, err
			}
			n -= 1 + pad
		}
		if h.Flags.Has(FlagPriority) {
			n -= 5
			if n >= 0 {
				if err = r.need(5); err != nil {
					return f, false, unexpected(err)
				}
				r.dependency = ParsePriority(r.buf[r.r:])
				r.r += 5
			}
		}
		if n < 0 {
			return f, false, ConnError{ProtocolError, "padding or priority longer than the frame"}
		}
	} else if r.conts++; r.conts > maxContinuations {
		return f, false, ConnError{EnhanceYourCalm, "too many CONTINUATION frames"}
	}
	if len(r.block)+n > r.limits.MaxHeaderBlock {
		return f, false, ConnError{EnhanceYourCalm, "header block too large"}
	}
	if err = r.copyTo(n); err != nil {
		return f, false, unexpected(err)
	}
	r.skip = pad
	if !h.Flags.Has(FlagEndHeaders) {
		return f, false, nil
	}
	if r.waits {
		r.waits = false
		r.OnBlock(false)
	}
	f = Frame{FrameHeader: r.blockHead, Payload: r.block, First: true, Last: true, Dependency: r.dependency}
	r.blockHead = FrameHeader{}
	if cap(r.block) > 4<<10 {
		r.block = nil // f.Payload keeps it alive for as long as it is needed
	}
	return f, true, nil
}

// copyTo appends the next n bytes of the stream to the header block.
func (r *Reader) copyTo(n int) error {
	for n > 0 {
		if r.r == r.w {
			if err := r.fill(1); err != nil {
				return err
			}
		}
		k := min(n, r.w-r.r)
		r.block = append(r.block, r.buf[r.r:r.r+k]...)
		r.r += k
		n -= k
	}
	return nil
}

// skipped drops the bytes that nobody wants.
func (r *Reader) skipped() error {
	for r.skip > 0 {
		if r.r == r.w {
			if err := r.fill(1); err != nil {
				return unexpected(err)
			}
		}
		k := min(r.skip, r.w-r.r)
		r.r += k
		r.skip -= k
	}
	return nil
}

// need makes n bytes contiguous at r.r; n is at most maxWhole.
func (r *Reader) need(n int) error {
	for r.w-r.r < n {
		before := r.w - r.r
		if err := r.fill(n); err != nil {
			if before > 0 {
				err = unexpected(err)
			}
			return err
		}
	}
	return nil
}

// fill reads once, so that n bytes may be contiguous. An empty reader starts in its own small buffer and takes a pooled one when
// that was full: then more is waiting.
func (r *Reader) fill(n int) error {
	if r.chunks != nil {
		return r.fillChunk(n)
	}
	if r.reuse != nil {
		r.reuse()
	}
	if r.OnWait != nil {
		r.OnWait()
	}
	if r.buf == nil && r.lender == nil {
		r.buf = r.small()
	}
	if r.r > 0 {
		copy(r.buf, r.buf[r.r:r.w])
		r.w -= r.r
		r.r = 0
	}
	if r.lender != nil && r.w == 0 {
		return r.fillLent()
	}
	if r.w == len(r.buf) {
		r.grow()
	}
	for range 16 {
		n, err := r.src.Read(r.buf[r.w:])
		r.w += n
		if n > 0 {
			if len(r.buf) == idleSize && r.w == idleSize {
				r.grow()
			}
			return nil
		}
		if err != nil {
			if r.OnIdle == nil || !isTimeout(err) || !r.OnIdle() {
				return err
			}
			r.shrink()
		}
	}
	return io.ErrNoProgress
}

// fillLent waits for bytes without a buffer.
func (r *Reader) fillLent() error {
	if cap(r.buf) > idleSize {
		r.pool.Put(r.buf)
	}
	r.buf = nil
	for {
		b, n, err := r.lender.ReadLent(readSize)
		switch {
		case err == nil:
			r.buf, r.w = b, n
			return nil
		case r.OnIdle == nil || !isTimeout(err) || !r.OnIdle():
			return err
		}
	}
}

// fillChunk goes on to the next chunk. What is left of the last one is joined with as much of it as makes n bytes.
func (r *Reader) fillChunk(n int) error {
	left := r.w - r.r
	if left > 0 {
		r.join(n)
	}
	if len(r.next) == 0 {
		var err error
		if r.next, err = r.nextChunk(); err != nil {
			return err
		}
	}
	if left == 0 {
		r.parted()
		r.buf, r.r, r.w, r.next = r.next, 0, len(r.next), nil
		return nil
	}
	k := copy(r.buf[r.w:n], r.next)
	r.w += k
	r.next = r.next[k:]
	return nil
}

// join moves what is left to the start of memory of our own, with room for n bytes.
func (r *Reader) join(n int) {
	to := r.small()
	if n > idleSize {
		to = r.pool.Get(n)
	}
	r.w = copy(to, r.buf[r.r:r.w])
	r.r = 0
	r.parted()
	r.buf = to
	if n > idleSize {
		r.joined = to
	}
}

// parted gives the buffer back in which chunks were joined.
func (r *Reader) parted() {
	if r.joined != nil {
		r.pool.Put(r.joined)
		r.joined = nil
	}
}

func (r *Reader) nextChunk() ([]byte, error) {
	for {
		p, err := r.chunks.Next()
		if err == nil || r.OnIdle == nil || !isTimeout(err) || !r.OnIdle() {
			return p, err
		}
	}
}

func (r *Reader) grow() {
	big := r.pool.Get(readSize)
	r.w = copy(big, r.buf[r.r:r.w])
	r.r = 0
	r.buf = big
}

// shrink gives a pooled buffer back if what it still holds fits the small one.
func (r *Reader) shrink() {
	if len(r.buf) <= idleSize || r.w-r.r > idleSize/2 {
		return
	}
	small := r.small()
	n := copy(small, r.buf[r.r:r.w])
	r.pool.Put(r.buf)
	r.buf, r.r, r.w = small, 0, n
}

// small is the Reader's own buffer.
func (r *Reader) small() []byte {
	if r.idle == nil {
		r.idle = make([]byte, idleSize)
	}
	return r.idle
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
