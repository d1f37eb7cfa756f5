package exchange

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// Strings stay what they are while others are made, also beyond the memory of the first request.
func TestScratch(t *testing.T) {
	var s Scratch
	for round := range 3 {
		s.Reset()
		var kept, want []string
		for i := range 200 {
			text := strings.Repeat(string(rune('a'+i%26)), i)
			kept, want = append(kept, s.Concat(text, "-", text)), append(want, text+"-"+text)
			kept, want = append(kept, s.Lower("Ab"+text)), append(want, "ab"+text)
		}
		for i := range kept {
			if kept[i] != want[i] {
				t.Fatalf("round %d: string %d is %q, want %q", round, i, kept[i], want[i])
			}
		}
	}
	if n := testing.AllocsPerRun(10, func() { s.Reset(); s.Concat("a", "b") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestHeader(t *testing.T) {
	h := &httpmsg.Head{}
	h.Reset()
	h.Version, h.Method, h.Authority, h.Path, h.Scheme, h.Upgrade, h.ContentLength = httpmsg.HTTP11, "GET", "h", "/p", "http", "websocket", 5
	h.Header.Add("x-a", "1")
	h.Header.Add("x-a", "2")
	for key, want := range map[string]string{
		":method": "GET", ":path": "/p", ":authority": "h", "host": "h", ":scheme": "http", "content-length": "5", "upgrade": "websocket", "connection": "upgrade", "x-a": "1,2", "x-b": "-", ":status": "-", ":protocol": "-", "": "-",
	} {
		v, ok := Header(h, key)
		if !ok {
			v = "-"
		}
		if v != want {
			t.Errorf("%s: %q, want %q", key, v, want)
		}
	}
	if v, _ := First(h, "x-a"); v != "1" {
		t.Error(v)
	}
}
