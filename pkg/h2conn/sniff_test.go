package h2conn_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/h2conn"
)

func TestSniff(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     h2conn.Protocol
		hangs    bool // nothing is sure before the timeout
	}{
		{"preface", h2.Preface + "rest", h2conn.HTTP2, false},
		{"preface alone", h2.Preface, h2conn.HTTP2, false},
		{"half a preface", h2.Preface[:10], h2conn.Unknown, true},
		{"almost a preface", strings.Replace(h2.Preface, "SM", "XX", 1), h2conn.Unknown, false},
		{"HTTP/1.1", "GET / HTTP/1.1\r\nhost: x\r\n\r\n", h2conn.HTTP1, false},
		{"HTTP/1.0", "POST /a HTTP/1.0\n", h2conn.HTTP10, false},
		{"method like the preface's", "PRINT /a HTTP/1.1\r\n", h2conn.HTTP1, false},
		{"long target", "GET /" + strings.Repeat("a", 8000) + " HTTP/1.1\r\n", h2conn.HTTP1, false},
		{"half a line", "GET / HT", h2conn.Unknown, true},
		{"HTTP/0.9", "GET /\r\n", h2conn.Unknown, false},
		{"TLS", "\x16\x03\x01\x00\xa5\x01", h2conn.Unknown, false},
		{"SSH", "SSH-2.0-OpenSSH_9.2\r\n", h2conn.Unknown, false},
		{"redis", "*1\r\n$4\r\nPING\r\n", h2conn.Unknown, false},
		{"SMTP", "EHLO example.com\r\n", h2conn.Unknown, false},
		{"letters without end", strings.Repeat("A", 100), h2conn.Unknown, false},
		{"nothing", "", h2conn.Unknown, true},
	} {
		for _, slow := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				ours, theirs := net.Pipe()
				go func() {
					step := len(tt.in)
					if slow {
						step = 1
					}
					for i := 0; i < len(tt.in); i += step {
						_, _ = theirs.Write([]byte(tt.in[i : i+step]))
					}
					if !tt.hangs {
						_, _ = theirs.Write([]byte("!"))
						theirs.Close()
					}
				}()
				timeout := time.Minute
				if tt.hangs {
					timeout = 100 * time.Millisecond
				}
				got, c, err := h2conn.Sniff(ours, timeout)
				if err != nil || got != tt.want {
					t.Errorf("%q %v", got, err)
				}
				var rest io.Reader = c
				want := tt.in + "!"
				if tt.hangs { // and the end of what was sent does not come
					want, rest = tt.in, io.LimitReader(c, int64(len(tt.in)))
				}
				if all, _ := io.ReadAll(rest); string(all) != want {
					t.Errorf("then read %q", all)
				}
				c.Close()
				theirs.Close()
			})
		}
	}
}
