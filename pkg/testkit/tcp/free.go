package tcp

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// given are the ports that Free returned: none comes twice.
var given sync.Map //nolint:gochecknoglobals // of all tests of one process

// Free returns a loopback address that nobody listens on yet. Its port is below those that the kernel gives away, so that no
// connection and no listener of anybody takes it before it is used, or between two uses.
func Free(t testing.TB) string {
	t.Helper()
	for {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(20000)))
		l, err := net.Listen("tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if _, again := given.LoadOrStore(address, true); !again {
			return address
		}
	}
}
