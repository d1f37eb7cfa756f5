package h2

import "errors"

// ReaderState is where a Reader stands between two frames, or within the payload of a DATA frame.
type ReaderState struct {
	Unread  []byte // read from the source, not handed on
	Settled bool   // the first frame was seen
	Skip    int    // bytes of no interest that come first
	// InData: Data is being handed on in pieces; Left bytes of its payload and Padding behind them are to come.
	InData, First bool
	Data          FrameHeader
	Left, Padding int
}

// errPlace is a place that no Reader can stand at.
var errPlace = errors.New("no place in a stream of frames")

// Resumable reports whether reading stands, or waits for bytes, where another Reader could go on. It concerns the goroutine that
// calls Next, and OnIdle.
func (r *Reader) Resumable() bool { return r.at == between }

// position is what Next waits for bytes of.
type position uint8

const (
	between position = iota // the head of a frame, or more of DATA
	within                  // the rest of a frame
)

// State returns where a resumable Reader stands. The Reader goes on with memory of its own: what its source has returned is free.
func (r *Reader) State() ReaderState {
	unread := make([]byte, 0, r.Buffered())
	unread = append(append(unread, r.buf[r.r:r.w]...), r.next...)
	r.own(append([]byte(nil), unread...))
	return ReaderState{
		Unread: unread, Settled: r.settled, Skip: r.skip, InData: r.inData, First: r.first, Data: r.data, Left: r.left, Padding: r.padding,
	}
}

// own makes the Reader hold nothing but unread.
func (r *Reader) own(unread []byte) {
	r.parted()
	r.next = nil
	if r.chunks != nil {
		r.buf, r.r, r.w = unread, 0, len(unread)
		return
	}
	r.r, r.w = 0, 0
	r.shrink()
	if r.buf = r.small(); len(unread) > idleSize/2 {
		r.buf = r.pool.Get(max(readSize, len(unread)))
	}
	r.w = copy(r.buf, unread)
}

// Resume makes a fresh Reader go on at s.
func (r *Reader) Resume(s ReaderState) error {
	if s.Skip < 0 || s.Left < 0 || s.Padding < 0 || s.Skip > MaxMaxFrameSize || s.Left > MaxMaxFrameSize || s.Padding > 255 ||
		s.InData && (s.Data.Type != FrameData || s.Data.StreamID == 0 || int(s.Data.Length) < s.Left+s.Padding) {
		return errPlace
	}
	r.settled, r.skip = s.Settled, s.Skip
	r.inData, r.first, r.data, r.left, r.padding = s.InData, s.First, s.Data, s.Left, s.Padding
	if r.chunks == nil && len(s.Unread) > readSize {
		return errPlace
	}
	r.own(append([]byte(nil), s.Unread...))
	return nil
}

// Table returns the entries of the dynamic table, oldest first, and its present limit in bytes.
func (d *HeaderDecoder) Table() (entries []HeaderField, limit int) {
	t := &d.dec.table
	return append([]HeaderField(nil), t.entries[t.first:]...), t.max
}

// ResumeTable fills the table of a fresh decoder.
func (d *HeaderDecoder) ResumeTable(entries []HeaderField, limit int) error {
	if limit < 0 || limit > tableSize {
		return errSizeUpdate
	}
	d.dec.table = dynamicTable{max: limit}
	for _, e := range entries {
		d.dec.table.add(e)
	}
	if len(d.dec.table.entries)-d.dec.table.first != len(entries) {
		return errSizeUpdate
	}
	return nil
}

// WindowState is a receiving window: what the peer may still send, and what was consumed and not announced.
type WindowState struct{ Available, Owed int64 }

// State returns where the window stands.
func (w *RecvWindow) State() WindowState { return WindowState{w.avail, w.owed} }

// ResumeRecvWindow returns a window of size bytes that stands at s.
func ResumeRecvWindow(size uint32, s WindowState) (RecvWindow, error) {
	if s.Available < 0 || s.Owed < 0 || s.Available+s.Owed > int64(size) {
		return RecvWindow{}, errors.New("no state of a window")
	}
	return RecvWindow{avail: s.Available, owed: s.Owed, size: int64(size)}, nil
}

// State returns how much may be sent, which may be negative.
func (w *SendWindow) State() int64 { return w.n }

// ResumeSendWindow returns a window of n bytes.
func ResumeSendWindow(n int64) (SendWindow, error) {
	if n > MaxWindow || n < -MaxWindow {
		return SendWindow{}, errors.New("no state of a window")
	}
	return SendWindow{n}, nil
}
