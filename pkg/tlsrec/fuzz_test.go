package tlsrec

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// script makes records of fuzz input: an instruction, its argument, and what to do.
func script(k *keys, in []byte) (wire []byte, honest bool) {
	honest = true
	for len(in) >= 2 && len(wire) < 1<<20 {
		op, arg := in[0], in[1]
		in = in[2:]
		n := min(int(arg), len(in))
		switch op % 8 {
		case 0: // data
			wire = k.seal(wire, typeApplicationData, in[:n], false)
			in = in[n:]
		case 1: // much data
			wire = k.seal(wire, typeApplicationData, bytes.Repeat([]byte{arg}, int(arg)*66), false)
		case 2: // any record
			wire = k.seal(wire, recordType(arg), in[:n], false)
			in = in[n:]
			honest = false
		case 3: // new keys
			wire = k.seal(wire, typeHandshake, []byte{messageKeyUpdate, 0, 0, 1, arg % 2}, false)
			if k.update() != nil {
				return wire, false
			}
		case 4: // a ticket, in pieces
			message := append([]byte{messageNewSessionTicket, 0, 0, byte(n)}, in[:n]...)
			cut := min(int(arg)%5, len(message))
			wire = k.seal(wire, typeHandshake, message, false)
			honest = honest && n > 0 && cut >= 0
			in = in[n:]
		case 5: // padding
			inner := append(append([]byte(nil), in[:n]...), byte(typeApplicationData))
			inner = append(inner, make([]byte, arg)...)
			head := []byte{23, 3, 3, byte((len(inner) + tagLen) >> 8), byte(len(inner) + tagLen)}
			wire = append(wire, head...)
			wire = k.aead.Seal(wire, k.step(), inner, head)
			in = in[n:]
		case 6: // bytes as they are
			wire = append(wire, in[:n]...)
			in = in[n:]
			honest = false
		case 7: // damage
			if len(wire) > 0 {
				wire[int(arg)%len(wire)]++
				honest = false
			}
		}
	}
	return wire, honest
}

// replay is a connection that yields bytes in pieces, and takes all.
type replay struct {
	net.Conn
	data  []byte
	piece int
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.data[:min(len(r.data), r.piece)])
	r.data = r.data[n:]
	return n, nil
}
func (*replay) Write(p []byte) (int, error)      { return len(p), nil }
func (*replay) SetWriteDeadline(time.Time) error { return nil }
func (*replay) Close() error                     { return nil }
func (*replay) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*replay) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// FuzzReader: whatever records come, reading ends without harm, and delivers what crypto/tls delivers.
func FuzzReader(f *testing.F) {
	f.Add([]byte("\x00\x05hello\x01\x80\x03\x01\x00\x02hi\x05\x04padd\x04\x03abc"), byte(7))
	f.Add([]byte("\x00\x01a\x02\x16\x18\x00\x00\x01\x00"), byte(1))
	f.Add([]byte("\x01\xff\x07\x05\x00\x01b"), byte(255))
	f.Add([]byte("\x02\x15\x01\x00\x00\x01b"), byte(20))
	f.Add([]byte("\x06\x05\x17\x03\x03\x00\x11\x03\x00\x00\x01b"), byte(20))
	f.Fuzz(func(t *testing.T, in []byte, piece byte) {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		client, server := shaken(t, a, b, standardClient, Server)
		k := server.(*Conn).tx.keys
		twin, err := newKeys(k.suite, clone(k.secret), 0)
		if err != nil {
			t.Fatal(err)
		}
		wire, honest := script(k, in)
		other, err := newKeys(k.suite, clone(twin.secret), 0)
		if err != nil {
			t.Fatal(err)
		}
		under := &replay{data: clone(wire), piece: 1 + int(piece)*64}
		mine := newConn(under, true, tls.ConnectionState{}, twin, other)
		got, gotErr := io.ReadAll(mine)
		if len(mine.rx.buf) > 16896 && len(wire) < 10000 {
			t.Errorf("%d bytes of buffer for %d bytes", len(mine.rx.buf), len(wire))
		}
		mine.Close()
		go func() {
			_, _ = io.Copy(io.Discard, b)
		}()
		go func() {
			_, _ = b.Write(wire)
			b.Close()
		}()
		want, wantErr := io.ReadAll(client)
		if n := min(len(got), len(want)); !bytes.Equal(got[:n], want[:n]) {
			t.Fatalf("%q, crypto/tls reads %q", got, want)
		}
		// Both came to the end of the input without having a complaint.
		if errors.Is(gotErr, io.ErrUnexpectedEOF) && errors.Is(wantErr, io.ErrUnexpectedEOF) && len(got) != len(want) {
			t.Fatalf("%d bytes, crypto/tls reads %d", len(got), len(want))
		}
		var refused *AlertError
		if honest && errors.As(gotErr, &refused) && errors.Is(wantErr, io.ErrUnexpectedEOF) && refused.Reason != "too many KeyUpdates" {
			t.Fatalf("%v, crypto/tls reads on", gotErr)
		}
	})
}

// FuzzParseState: no input is taken for a state that it is not, or does harm.
func FuzzParseState(f *testing.F) {
	s := &State{func() *live {
		return &live{client: true, suite: tls.TLS_AES_128_GCM_SHA256, in: half{make([]byte, 32), 5}, out: half{make([]byte, 32), 6}, protocol: "h2", peer: [][]byte{{1}}}
	}}
	f.Add(s.Append(nil))
	client, server := ours(f)
	_, _ = server.Write([]byte("it waits to be read"))
	_, _ = client.Read(make([]byte, 5))
	_ = client.CloseWrite()
	for _, c := range []*Conn{client, server} {
		state, err := c.Export()
		if err != nil {
			f.Fatal(err)
		}
		encoded := state.Append(nil)
		f.Add(encoded)
		other := clone(encoded)
		other[0] ^= stateVersion ^ kernelVersion // who seals
		f.Add(other)
		c.NetConn().Close()
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := ParseState(in)
		if err != nil {
			return
		}
		again, err := ParseState(s.Append(nil))
		if err != nil || !bytes.Equal(again.Append(nil), s.Append(nil)) {
			t.Fatalf("not the same again: %v", err)
		}
		c, err := Resume(&replay{piece: 1}, s)
		if err == nil {
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
	})
}
