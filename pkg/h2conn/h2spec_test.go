package h2conn_test

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// TestH2spec: the conformance tester finds nothing to complain of.
func TestH2spec(t *testing.T) {
	addr := listen(t, func(_ context.Context, s httpmsg.ServerStream) {
		if _, err := io.Copy(io.Discard, s); err != nil {
			return
		}
		_ = s.Respond(&httpmsg.Head{Status: 200, ContentLength: -1}, false)
		_, _ = s.Write([]byte("hello, world"))
		_ = s.Finish(nil)
	}, h2conn.ServerConfig{})
	host, port, _ := net.SplitHostPort(addr)
	tool := exec.CommandContext(t.Context(), "go", "tool", "h2spec", "-h", host, "-p", port, "-o", "1")
	tool.Dir = "../../tools/h2spec"
	tool.Env = append(os.Environ(), "GOWORK=off")
	out, err := tool.CombinedOutput()
	if want := regexp.MustCompile(`\b0 skipped, 0 failed`); err != nil || !want.Match(out) {
		t.Errorf("%v\n%s", err, out)
	}
}
