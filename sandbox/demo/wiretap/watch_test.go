package wiretap_test

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/isthmus-mesh/isthmus/sandbox/demo/wiretap"
)

// record is one of TLS on the wire.
func record(kind byte, n int) []byte {
	return append([]byte{kind, 3, 3, byte(n >> 8), byte(n)}, bytes.Repeat([]byte{0xee}, n)...)
}

// segments cuts a direction of a connection into pieces.
func segments(from, to netip.AddrPort, sequence uint32, size int, stream []byte) (all []wiretap.Segment) {
	for piece := range slices.Chunk(stream, size) {
		all = append(all, wiretap.Segment{Source: from, Destination: to, Sequence: sequence, Payload: piece})
		sequence += uint32(len(piece))
	}
	return all
}

func TestWatchFollowsRecords(t *testing.T) {
	stream := slices.Concat(record(22, 500), record(20, 1), record(23, 16000), record(23, 20), record(23, 3))
	for _, size := range []int{1, 3, 7, 1000, 1 << 20} {
		for name, order := range map[string]func([]wiretap.Segment){
			"in order": func([]wiretap.Segment) {},
			"swapped": func(all []wiretap.Segment) {
				for n := 2; n+1 < len(all); n += 2 {
					all[n], all[n+1] = all[n+1], all[n]
				}
			},
		} {
			all := segments(client, server, 1<<32-700, size, stream) // the numbers begin anew on the way
			order(all)
			w := wiretap.NewWatch(15008, "secret")
			for n, s := range all {
				w.See(s)
				if n%5 == 0 {
					w.See(s) // sent again
				}
			}
			f := w.Findings()
			if f.Tunnelled != len(stream) || len(f.Foreign)+len(f.Readable)+len(f.Elsewhere)+f.Lost > 0 {
				t.Errorf("pieces of %d, %s: %+v, want %d bytes", size, name, f, len(stream))
			}
		}
	}
}

func TestWatchMissesNothing(t *testing.T) {
	hidden := slices.Concat(record(22, 500), record(23, 1000))
	for name, tc := range map[string]struct {
		port   uint16
		stream []byte
		want   func(wiretap.Findings) bool
	}{
		"a secret within what looks like a record": {15008, append(record(23, 40)[:20], "the secret is here, you know"...), func(f wiretap.Findings) bool { return slices.Equal(f.Readable, []string{"secret"}) }},
		"plaintext on the port":                    {15008, []byte("PRI * HTTP/2.0\r\n"), func(f wiretap.Findings) bool { return len(f.Foreign) == 1 }},
		"plaintext behind records":                 {15008, append(slices.Clone(hidden), "hello, who is there?"...), func(f wiretap.Findings) bool { return len(f.Foreign) == 1 && f.Tunnelled == len(hidden) }},
		"a handshake in the clear behind data":     {15008, append(slices.Clone(hidden), record(22, 10)...), func(f wiretap.Findings) bool { return len(f.Foreign) == 1 }},
		"a record too long":                        {15008, record(23, 17000), func(f wiretap.Findings) bool { return len(f.Foreign) == 1 }},
		"another port":                             {8080, []byte("the secret"), func(f wiretap.Findings) bool { return f.Elsewhere[8080] == 10 && len(f.Readable) == 1 }},
	} {
		w := wiretap.NewWatch(15008, "secret")
		to := netip.AddrPortFrom(server.Addr(), tc.port)
		for _, s := range segments(client, to, 7, 9, tc.stream) {
			w.See(s)
		}
		if f := w.Findings(); !tc.want(f) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// TestWatchSaysWhatItHasNotSeen: a part that the capture lacks is not passed over in silence.
func TestWatchSaysWhatItHasNotSeen(t *testing.T) {
	w := wiretap.NewWatch(15008, "secret")
	for n, s := range segments(client, server, 7, 10, record(23, 16000)) {
		if n != 5 {
			w.See(s)
		}
	}
	if f := w.Findings(); f.Lost != 1 || len(f.Foreign) > 0 {
		t.Errorf("%+v", f)
	}
}
