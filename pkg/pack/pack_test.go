package pack

import (
	"bytes"
	"net/netip"
	"testing"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	var w Writer
	w.Uint(1 << 40)
	w.Int(-7)
	w.Bool(true)
	w.Bytes(bytes.Repeat([]byte("x"), 5000))
	w.Text("text")
	w.Addr(netip.MustParseAddrPort("[fd00::1]:80"))
	w.Addr(netip.AddrPort{})
	w.Bytes(nil)
	message := w.Finish()
	r := NewReader(message)
	if n, i, b := r.Uint(1<<40), r.Int(), r.Bool(); n != 1<<40 || i != -7 || !b {
		t.Errorf("%d %d %v", n, i, b)
	}
	if b, s := r.Bytes(), r.Text(); len(b) != 5000 || s != "text" {
		t.Errorf("%d bytes, %q", len(b), s)
	}
	if a, none, empty := r.Addr(), r.Addr(), r.Borrow(); a.Port() != 80 || none.IsValid() || len(empty) != 0 {
		t.Errorf("%v %v %v", a, none, empty)
	}
	if err := r.End(); err != nil {
		t.Error(err)
	}
	for cut := range message {
		r := NewReader(message[:cut])
		r.Uint(1 << 40)
		r.Int()
		r.Bool()
		r.Bytes()
		r.Text()
		r.Addr()
		r.Addr()
		r.Bytes()
		if r.End() == nil {
			t.Fatalf("cut at %d, nothing is missed", cut)
		}
	}
	if NewReader(message).Uint(5) != 0 {
		t.Error("a number above its limit was read")
	}
	if NewReader(message).End() == nil {
		t.Error("what is left over is not missed")
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{5, 1, 2, 3, 4, 5, 200, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		for n := r.Count(); n > 0 && r.Err() == nil; n-- {
			if len(r.Bytes()) > len(b) || len(r.Text()) > len(b) {
				t.Fatal("more came out than went in")
			}
			_, _, _ = r.Int(), r.Bool(), r.Addr()
		}
	})
}
