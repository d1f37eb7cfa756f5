package h1

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// Who asks for the end of the client just when its connection becomes a tunnel must not read what belongs to the tunnel.
func TestWatchLeavesTunnelsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		in := &input{nc: near}
		defer in.release()
		w := watch{in: in, delay: watchDelay, lost: func(n int, err error) { t.Errorf("read %d, %v", n, err) }}
		w.arm()
		w.stop()
		w.end()
		w.arm()
		go far.Write([]byte("tunnel"))
		synctest.Wait()
		got := make([]byte, 6)
		time.Sleep(2 * watchDelay)
		if n, err := near.Read(got); err != nil || string(got[:n]) != "tunnel" {
			t.Errorf("%q, %v", got[:n], err)
		}
	})
}
