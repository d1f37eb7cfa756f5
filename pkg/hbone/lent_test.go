package hbone

import (
	"context"
	"io"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// A lent buffer is kept as long as it may be needed again, and no longer.
func TestLentBuffersAreGivenBack(t *testing.T) {
	cc, _ := connect(t, handlerFunc(func(ctx context.Context, r *Request, w ResponseWriter) {
		if r.Authority == "refuse:1" {
			w.Refuse(503, nil)
			return
		}
		echo(ctx, r, w)
	}), ServerConfig{})
	for _, size := range []int{10, EarlySize, EarlySize + 1} { // the last does not go with the CONNECT
		lend := func(authority string) *Request {
			r := &Request{Authority: authority, Early: netx.Pool.Get(size)[:size], Lent: true}
			copy(r.Early, "first")
			return r
		}
		refused := lend("refuse:1")
		if _, _, err := cc.Connect(deadline(t), refused); err == nil || len(refused.Early) != size || string(refused.Early[:5]) != "first" {
			t.Errorf("%d bytes, refused with %v: %d are left", size, err, len(refused.Early))
		}
		netx.Pool.Put(refused.Early)
		accepted := lend("a:1")
		s, _, err := cc.Connect(deadline(t), accepted)
		if err != nil {
			t.Fatal(err)
		}
		if accepted.Early != nil {
			t.Errorf("%d bytes, accepted: the buffer is kept", size)
		}
		back := make([]byte, size)
		if _, err := io.ReadFull(s, back); err != nil || string(back[:5]) != "first" {
			t.Errorf("%q..., %v", back[:5], err)
		}
		s.Close()
	}
}
