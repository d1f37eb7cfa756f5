package sklookup

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestErrorsOfOldKernelsTellWhatToDo: the kernel of the tests has it all, so what an old one says is made up here.
func TestErrorsOfOldKernelsTellWhatToDo(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{fmt.Errorf("tcx: %w (requires >= v6.6)", ebpf.ErrNotSupported), true},
		{unix.EPERM, false},
	} {
		err := withRemedy(tt.err, "tcx (Linux 6.6)")
		got := strings.Contains(err.Error(), "tcx (Linux 6.6): choose another redirectBackend (nft or iptables)")
		if got != tt.want || !strings.HasPrefix(err.Error(), tt.err.Error()) {
			t.Errorf("%v", err)
		}
	}
}
