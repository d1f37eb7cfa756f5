package tcp

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

func TestNobody(t *testing.T) {
	address := Nobody(t).String()
	if _, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v", err)
	}
	if l, err := net.Listen("tcp", address); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listen: %v, %v", l, err)
	}
}
