package hbone

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/tcp"
)

// A peer whose windows are tiny gets what they allow, and each of its streams keeps one small buffer from the others, however much there
// is to send.
func TestTinyWindowsHoldLittle(t *testing.T) {
	const streams = 50
	p := &purse{}
	a, b := carrier(t)
	var apps sync.WaitGroup
	served := make(chan error, 1)
	go func() {
		served <- ServeConn(context.Background(), b, handlerFunc(func(ctx context.Context, _ *Request, w ResponseWriter) {
			app, near := tcp.Pair(t)
			apps.Go(func() { // it has more to say than anybody takes
				defer app.Close()
				for buf := make([]byte, 64<<10); ; {
					if _, err := app.Write(buf); err != nil {
						return
					}
				}
			})
			if s, err := w.Accept(nil); err == nil {
				_ = netx.Relay(ctx, s, near, nil) // it ends with the connection
			}
			near.Close()
		}), ServerConfig{Budget: p})
	}()
	h := &hostile{t: t, framer: http2.NewFramer(a, a), raw: a}
	h.hpack = hpack.NewEncoder(&h.block)
	a.SetDeadline(time.Now().Add(2 * time.Minute))
	if _, err := io.WriteString(a, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := h.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(streams) {
		h.connect(2*i + 1)
	}
	bytes := make(map[uint32]int)
	for got := 0; got < 3*streams; {
		f, err := h.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		data, ok := f.(*http2.DataFrame)
		if !ok {
			continue
		}
		got += len(data.Data())
		if bytes[data.StreamID] += len(data.Data()); bytes[data.StreamID] < 3 {
			if err := h.framer.WriteWindowUpdate(data.StreamID, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(bytes) != streams {
		t.Errorf("%d of %d streams got something", len(bytes), streams)
	}
	p.until(t, "all streams wait", func(held int64) bool { return held > (streams-1)*netx.SmallBuffer/2 })
	if most := p.most.Load(); most > streams*netx.SmallBuffer {
		t.Errorf("%d bytes were held for %d streams", most, streams)
	}
	a.Close()
	<-served
	apps.Wait()
	p.until(t, "nothing is held", func(held int64) bool { return held == 0 })
}
