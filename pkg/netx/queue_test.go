package netx

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// Whatever goes in comes out, in order, by any way out.
func TestQueue(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var q Queue
	var want []byte
	next := byte(0)
	take := func(got []byte) {
		t.Helper()
		if !bytes.Equal(got, want[:len(got)]) {
			t.Fatalf("got %d bytes that differ", len(got))
		}
		want = want[len(got):]
	}
	for range 5000 {
		switch random.IntN(5) {
		case 0, 1:
			p := make([]byte, 1+random.IntN(3*MediumBuffer/2)>>random.IntN(12))
			for i := range p {
				p[i] = next
				next++
			}
			q.Add(p)
			want = append(want, p...)
		case 2:
			p := make([]byte, random.IntN(MediumBuffer))
			take(p[:q.Read(p)])
		case 3:
			left := random.IntN(MediumBuffer)
			q.Drain(func(b []byte) int {
				n := min(len(b), left)
				take(b[:n])
				left -= n
				return n
			})
		case 4:
			if data, buffer := q.Pop(); buffer != nil {
				take(data)
				Pool.Put(buffer)
			}
		}
		if q.Len() != len(want) {
			t.Fatalf("%d bytes wait, want %d", q.Len(), len(want))
		}
		if len(want) > 1<<20 && q.Clear() == len(want) {
			want = nil
		}
	}
}
