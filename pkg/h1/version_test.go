package h1_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/isthmus-mesh/isthmus/pkg/h1"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// TestServerVersions: what of other versions is answered, with and without HTTP/1.0, and that what is not HTTP at all is not.
func TestServerVersions(t *testing.T) {
	serve := func(refuse bool) string {
		return listen(t, func(_ context.Context, s httpmsg.ServerStream) {
			_ = s.Respond(&httpmsg.Head{Status: 200}, true)
		}, h1.ServerConfig{RefuseHTTP10: refuse})
	}
	accepting, refusing := serve(false), serve(true)
	for _, tt := range []struct {
		in                string
		accepted, refused int // 0: closed without an answer
	}{
		{"GET / HTTP/1.1\r\nhost: x\r\n\r\n", 200, 200},
		{"GET / HTTP/1.0\r\nhost: x\r\n\r\n", 200, 426},
		{"GET / HTTP/1.2\r\nhost: x\r\n\r\n", 200, 426},
		{"GET / HTTP/3.0\r\nhost: x\r\n\r\n", 505, 426},
		{"GET /\r\n\r\n", 400, 426},
		{"GET / FTP/1.0\r\n\r\n", 400, 400},
		{"HELO\r\n\r\n", 400, 400},
		{"INVALID CONNECTION PREFACE\r\n\r\n", 0, 0},
	} {
		for addr, want := range map[string]int{accepting: tt.accepted, refusing: tt.refused} {
			c := dial(t, addr)
			if _, err := c.Write([]byte(tt.in)); err != nil {
				t.Fatal(err)
			}
			if want == 0 {
				if text, err := io.ReadAll(c); err != nil || len(text) > 0 {
					t.Errorf("%q: got %q, %v; want the end", tt.in, text, err)
				}
				continue
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Errorf("%q: %v", tt.in, err)
				continue
			}
			if resp.StatusCode != want {
				t.Errorf("%q: status %d, want %d", tt.in, resp.StatusCode, want)
			}
			resp.Body.Close()
		}
	}
}
