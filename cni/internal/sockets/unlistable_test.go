package sockets

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
)

// TestMissingModulesAreNamed: a kernel without tcp_diag answers as every kernel does for a protocol of which it lists no sockets.
func TestMissingModulesAreNamed(t *testing.T) {
	ns, err := netns.Host()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	const experimental = 253
	_, err = list(ns, experimental, ^uint32(0))
	if !errors.Is(err, unix.ENOENT) {
		t.Fatalf("a protocol without sockets: %v", err)
	}
	for _, tt := range []struct {
		protocol uint8
		err      error
		want     string
	}{
		{unix.IPPROTO_TCP, unix.ENOENT, "list TCP sockets: no such file or directory: the kernel lacks inet_diag or tcp_diag: load them on the node (modprobe -a inet_diag tcp_diag)"},
		{unix.IPPROTO_UDP, unix.ENOENT, "list UDP sockets: no such file or directory: the kernel lacks inet_diag or udp_diag: load them on the node (modprobe -a inet_diag udp_diag)"},
		{unix.IPPROTO_TCP, unix.EPROTONOSUPPORT, "list TCP sockets: protocol not supported: the kernel lacks inet_diag or tcp_diag: load them on the node (modprobe -a inet_diag tcp_diag)"},
		{unix.IPPROTO_TCP, unix.EPERM, "list TCP sockets: operation not permitted"},
	} {
		if got := unlistable(tt.protocol, tt.err); got.Error() != tt.want || !errors.Is(got, tt.err) {
			t.Errorf("%v; want %s", got, tt.want)
		}
	}
	if got := unlistable(unix.IPPROTO_TCP, err).Error(); !strings.Contains(got, "modprobe -a inet_diag tcp_diag") {
		t.Errorf("what this kernel says is not understood: %s", got)
	}
}
