package h2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
)

// chunked hands out bytes in pieces, and a timeout where they end, until more is there.
type chunked struct {
	pieces [][]byte
	reuse  func()
}

func (c *chunked) Next() ([]byte, error) {
	if c.reuse != nil {
		c.reuse()
	}
	if len(c.pieces) == 0 {
		return nil, os.ErrDeadlineExceeded
	}
	p := c.pieces[0]
	c.pieces = c.pieces[1:]
	return append([]byte(nil), p...), nil
}

func (c *chunked) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
func (c *chunked) OnReuse(fn func())        { c.reuse = fn }
func (c *chunked) Release()                 {}

type plainPool struct{}

func (plainPool) Get(n int) []byte { return make([]byte, max(n, 64<<10)) }
func (plainPool) Put([]byte)       {}

// describe reads frames until the source has no more, and says what they are, DATA by DATA as one.
func describe(t *testing.T, r *Reader, out *bytes.Buffer) {
	t.Helper()
	for {
		f, err := r.Next()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == FrameData {
			out.Write(f.Payload)
			if f.Last {
				fmt.Fprintf(out, "<end of %d>", f.StreamID)
			}
			continue
		}
		fmt.Fprintf(out, "<%d %d %x>", f.Type, f.StreamID, f.Payload)
	}
}

// TestReadersGoOnAnywhere: a stream of frames is cut at every byte; where its reader can stand, another goes on.
func TestReadersGoOnAnywhere(t *testing.T) {
	wire := AppendSettings(nil, Setting{SettingInitialWindowSize, 1 << 20})
	wire = AppendHeaders(wire, 1, false, AppendStatus(nil, 200), MinMaxFrameSize)
	wire = append(FrameHeader{Length: 5, Type: FrameData, StreamID: 1}.Append(wire), "hello"...)
	wire = append(FrameHeader{Length: 8, Type: FrameData, Flags: FlagPadded, StreamID: 3}.Append(wire), 3, 'a', 'b', 'c', 'd', 0, 0, 0)
	wire = append(FrameHeader{Length: 4, Type: 77, StreamID: 1}.Append(wire), "what"...)
	wire = AppendPing(wire, false, [8]byte{1, 2, 3})
	wire = FrameHeader{Type: FrameData, Flags: FlagEndStream, StreamID: 1}.Append(wire)
	reader := func(pieces ...[]byte) *Reader {
		return NewReader(&chunked{pieces: pieces}, Limits{}, plainPool{})
	}
	var whole bytes.Buffer
	describe(t, reader(wire), &whole)
	stood := 0
	for cut := range wire {
		var got bytes.Buffer
		source := &chunked{pieces: [][]byte{wire[:cut/2], wire[cut/2 : cut]}}
		if cut/2 == 0 {
			source.pieces = source.pieces[1:]
		}
		if cut == 0 {
			source.pieces = nil
		}
		first := NewReader(source, Limits{}, plainPool{})
		describe(t, first, &got)
		if !first.Resumable() {
			continue
		}
		stood++
		state := first.State()
		next := reader(wire[cut:])
		if err := next.Resume(state); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		describe(t, next, &got)
		if got.String() != whole.String() {
			t.Errorf("cut at %d: %s, want %s", cut, &got, &whole)
		}
		// The first one may go on as well.
		var own bytes.Buffer
		source.pieces = [][]byte{wire[cut:]}
		describe(t, first, &own)
		if !bytes.HasSuffix(whole.Bytes(), own.Bytes()) {
			t.Errorf("cut at %d: the first goes on with %s", cut, &own)
		}
	}
	if stood < len(wire)/2 {
		t.Errorf("of %d places, another reader can go on at %d only", len(wire), stood)
	}
}

func TestImpossiblePlacesAreRefused(t *testing.T) {
	for _, s := range []ReaderState{
		{Skip: -1}, {Left: -1}, {Padding: 256}, {InData: true}, {InData: true, Data: FrameHeader{Type: FrameData, StreamID: 1, Length: 3}, Left: 4},
	} {
		if err := NewReader(&chunked{}, Limits{}, plainPool{}).Resume(s); err == nil {
			t.Errorf("%+v was resumed", s)
		}
	}
	if err := NewHeaderDecoder(1000).ResumeTable([]HeaderField{{Name: string(make([]byte, tableSize))}}, tableSize); err == nil {
		t.Error("a table with more than it holds was resumed")
	}
	if _, err := ResumeRecvWindow(100, WindowState{Available: 60, Owed: 60}); err == nil {
		t.Error("a window larger than it is was resumed")
	}
	if _, err := ResumeSendWindow(MaxWindow + 1); err == nil {
		t.Error("a window larger than any was resumed")
	}
}
