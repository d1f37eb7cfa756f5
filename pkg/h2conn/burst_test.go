package h2conn_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// A request that comes in one piece is handled when all of it is there.
func TestHandlerStartsWithTheBody(t *testing.T) {
	buffered, ended := make(chan int, 2), make(chan bool, 2)
	ours, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() {
		served <- h2conn.Serve(t.Context(), theirs, func(_ context.Context, s httpmsg.ServerStream) {
			buffered <- s.Buffered()
			body, _ := io.ReadAll(s)
			ended <- s.Ended() && string(body) == "hello"
			_ = s.Respond(&httpmsg.Head{Status: 204, ContentLength: -1}, true)
		}, h2conn.ServerConfig{})
	}()
	go func() { _, _ = io.Copy(io.Discard, ours) }()
	if _, err := ours.Write([]byte(h2.Preface)); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	burst := h2.AppendSettings(nil)
	for _, id := range []uint32{1, 3} { // the second has the fields that the table has now
		if id == 3 {
			block.Reset()
			for i := range 4 {
				block.WriteByte(0x80 | [4]byte{3, 6, 4, 62}[i])
			}
		}
		burst = h2.AppendHeaders(burst, id, false, block.Bytes(), h2.MinMaxFrameSize)
		burst = append(burst, 0, 0, 5, byte(h2.FrameData), byte(h2.FlagEndStream))
		burst = append(binary.BigEndian.AppendUint32(burst, id), "hello"...)
	}
	if _, err := ours.Write(burst); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if n := <-buffered; n != 5 {
			t.Errorf("%d bytes of the body were there", n)
		}
		if !<-ended {
			t.Error("the body is another one")
		}
	}
	ours.Close()
	<-served // an answer may still have been on its way
}

// Requests that have come before the connection breaks are handled, and see that it broke.
func TestHandlersOfABrokenConnectionStart(t *testing.T) {
	ours, theirs := net.Pipe()
	handled, served := make(chan error, 1), make(chan error, 1)
	go func() {
		served <- h2conn.Serve(t.Context(), theirs, func(_ context.Context, s httpmsg.ServerStream) {
			_, err := io.ReadAll(s)
			handled <- err
		}, h2conn.ServerConfig{})
	}()
	go func() { _, _ = io.Copy(io.Discard, ours) }()
	if _, err := ours.Write([]byte(h2.Preface)); err != nil {
		t.Fatal(err)
	}
	burst := h2.AppendHeaders(h2.AppendSettings(nil), 1, false, []byte{0x83, 0x86, 0x84, 0x41, 1, 'x'}, h2.MinMaxFrameSize)
	burst = append(burst, 0, 0, 1, byte(h2.FramePing), 0, 0, 0, 0, 0, 0) // of a size that none has
	if _, err := ours.Write(burst); err != nil {
		t.Fatal(err)
	}
	if err := <-handled; err == nil {
		t.Error("the handler saw nothing of it")
	}
	if err := <-served; err == nil {
		t.Error("no error")
	}
	ours.Close()
}
