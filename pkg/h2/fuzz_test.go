package h2_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// seeds are frames written by another implementation.
func seeds(f *testing.F) {
	var out bytes.Buffer
	w := http2.NewFramer(&out, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range []hpack.HeaderField{{Name: ":method", Value: "CONNECT"}, {Name: ":authority", Value: "10.0.0.1:80"}, {Name: "baggage", Value: "k=v"}} {
		if err := encoder.WriteField(field); err != nil {
			f.Fatal(err)
		}
	}
	err := errors.Join(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}), w.WriteSettingsAck(),
		w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes()[:5]}), w.WriteContinuation(1, true, block.Bytes()[5:]),
		w.WriteDataPadded(1, false, []byte("hello"), make([]byte, 3)), w.WriteData(1, true, nil), w.WriteWindowUpdate(0, 7), w.WriteRSTStream(1, http2.ErrCodeCancel),
		w.WritePing(false, [8]byte{1}), w.WritePriority(3, http2.PriorityParam{StreamDep: 1}), w.WriteGoAway(1, http2.ErrCodeNo, []byte("bye")))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes())
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff, 0xff})
}

// FuzzReader: whatever comes, the reader ends with an error, and what it hands on is as long as it says.
func FuzzReader(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		r := h2.NewReader(bytes.NewReader(data), h2.Limits{MaxFrameSize: 1 << 14, MaxHeaderBlock: 1 << 14}, netx.Pool)
		defer r.Release()
		headers := h2.NewHeaderDecoder(1 << 14)
		var got, announced int
		for {
			frame, err := r.Next()
			if err != nil {
				var fatal h2.ConnError
				var stream h2.StreamError
				if !errors.As(err, &fatal) && !errors.As(err, &stream) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("an error of no kind: %v", err)
				}
				if errors.As(err, &stream) {
					continue
				}
				return
			}
			switch frame.Type {
			case h2.FrameData:
				if frame.First {
					got, announced = 0, int(frame.Length)-frame.Padding
				}
				if got += len(frame.Payload); got > announced || frame.Last && got != announced {
					t.Fatalf("%d bytes of DATA, %d were announced", got, announced)
				}
			case h2.FrameHeaders:
				if _, err := headers.Decode(frame.StreamID, frame.Payload); errors.As(err, new(h2.ConnError)) {
					return
				}
			}
		}
	})
}

// FuzzHeaderDecoder: what it accepts is what another decoder reads.
func FuzzHeaderDecoder(f *testing.F) {
	f.Add([]byte{0x82, 0x86, 0x84, 0x41, 0x03, 'a', 'b', 'c'})
	f.Add(h2.AppendField(h2.AppendConnect(nil, "10.0.0.1:80"), "baggage", "k=v"))
	f.Fuzz(func(t *testing.T, block []byte) {
		ours, err := h2.NewHeaderDecoder(1<<16).Decode(1, block)
		if err != nil {
			return
		}
		theirs, err := hpack.NewDecoder(4096, nil).DecodeFull(block)
		if err != nil {
			t.Fatalf("accepted what another decoder refuses: %v", err)
		}
		if len(ours) != len(theirs) {
			t.Fatalf("%d fields, another decoder reads %d", len(ours), len(theirs))
		}
		for i := range ours {
			if ours[i].Name != theirs[i].Name || ours[i].Value != theirs[i].Value {
				t.Errorf("field %d is %v, another decoder reads %v", i, ours[i], theirs[i])
			}
		}
	})
}
