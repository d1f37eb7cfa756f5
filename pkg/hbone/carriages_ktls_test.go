//go:build ktls

package hbone

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// carriages are what the tests run over: here, what the kernel seals. A kernel that does not fails them.
func carriages() []carriage {
	return []carriage{{name: "ktls", client: Kernel, server: Kernel}}
}

// expectKernel fails the test unless the kernel seals what conn sends, where it is to.
func expectKernel(t testing.TB, transport Transport, conn Secured) {
	t.Helper()
	if transport != Kernel {
		return
	}
	raw, err := conn.NetConn().(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var name string
	if failed := raw.Control(func(fd uintptr) { name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_ULP) }); failed != nil || err != nil || name != "tls" {
		t.Fatalf("the kernel does not seal: %q, %v, %v", name, failed, err)
	}
}
