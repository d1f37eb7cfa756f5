package h1_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/h1"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

func TestServerWithNetHTTP(t *testing.T) {
	addr := listen(t, echo, h1.ServerConfig{})
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	for _, n := range []int{0, 1, 100, 4095, 4096, 20000, 1 << 20, 3<<20 + 7} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d chunked=%v", n, chunked), func(t *testing.T) {
				sent := pattern(n)
				var body io.Reader = bytes.NewReader(sent)
				if chunked {
					body = iotest.HalfReader(body)
				}
				r, _ := http.NewRequest("POST", "http://"+addr+"/a?b=c", body)
				r.Header.Set("Foo", "bar")
				if chunked {
					r.Trailer = http.Header{"X-Sum": {"7"}}
				}
				resp, err := tr.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				got, err := io.ReadAll(resp.Body)
				if err != nil || !bytes.Equal(got, sent) {
					t.Fatalf("got %d bytes, %v", len(got), err)
				}
				if resp.Header.Get("X-Path") != "/a?b=c" || resp.Header.Get("X-Authority") != addr || resp.Header.Get("X-Got-Foo") != "bar" {
					t.Errorf("header %v", resp.Header)
				}
				if chunked && n > 0 && resp.Trailer.Get("X-Sum") != "7" {
					t.Errorf("trailer %v", resp.Trailer)
				}
			})
		}
	}
}

// TestExchanges: what comes in on one connection, and all that goes out until the server hangs up. Requests are sent at once, and
// byte by byte.
func TestExchanges(t *testing.T) {
	h := func(ctx context.Context, s httpmsg.ServerStream) {
		switch r := s.Request(); {
		case strings.HasPrefix(r.Path, "/none"):
			_ = s.Respond(&httpmsg.Head{Status: 204, ContentLength: -1}, true)
		case strings.HasPrefix(r.Path, "/stream"):
			_ = s.Respond(&httpmsg.Head{Status: 200, ContentLength: -1}, false)
			_, _ = s.Write([]byte("abc"))
			_, _ = s.Write([]byte("defg"))
			tr := &httpmsg.Header{}
			tr.Add("x-t", "1")
			tr.Add("content-length", "9")
			_ = s.Finish(tr)
		case strings.HasPrefix(r.Path, "/len"):
			_ = s.Respond(&httpmsg.Head{Status: 200, ContentLength: 3}, false)
			_, _ = s.Write([]byte("abc"))
			_ = s.Finish(nil)
		case strings.HasPrefix(r.Path, "/hints"):
			early := &httpmsg.Head{Status: 103}
			early.Header.Add("link", "</x>")
			_ = s.Inform(early)
			_ = s.Respond(&httpmsg.Head{Status: 200, ContentLength: 0}, true)
		case strings.HasPrefix(r.Path, "/evil"):
			e := &httpmsg.Head{Status: 200, ContentLength: 0}
			e.Header.Add("x-a", "b\r\nx-c: d")
			e.Header.Add("x b", "c")
			e.Header.Add("transfer-encoding", "chunked")
			e.Header.Add("x-ok", "1")
			_ = s.Respond(e, true)
		default:
			got, err := io.ReadAll(s)
			e := &httpmsg.Head{Status: 200, ContentLength: int64(len(got))}
			e.Header.Add("at", fmt.Sprintf("%s %s://%s %s %d %v", r.Method, r.Scheme, r.Authority, r.Path, r.ContentLength, err))
			for k, v := range r.Header.All() {
				e.Header.Add("got", k+"="+v)
			}
			if tr := s.Trailer(); tr != nil {
				for k, v := range tr.All() {
					e.Header.Add("trailer", k+"="+v)
				}
			}
			_ = s.Respond(e, len(got) == 0)
			if len(got) > 0 {
				_, _ = s.Write(got)
				_ = s.Finish(nil)
			}
		}
	}
	const last = "GET /last HTTP/1.1\r\nhost: l\r\nconnection: close\r\n\r\n"
	const lastReply = "HTTP/1.1 200 OK\r\nat: GET http://l /last -1 <nil>\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
	tests := []struct{ name, in, out string }{
		{
			"pipelined", "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nhost: y\r\ncontent-length: 3\r\n\r\nabc" + last,
			"HTTP/1.1 200 OK\r\nat: GET http://x /a -1 <nil>\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\nat: POST http://y /b 3 <nil>\r\ncontent-length: 3\r\n\r\nabc" + lastReply,
		},
		{
			"chunked with trailer", "PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: Chunked\r\n\r\n3;ext=\"1\"\r\nabc\r\n00a\r\n0123456789\r\n0\r\nX-Sum:  4 \r\ncontent-length: 3\r\n\r\n" + last,
			"HTTP/1.1 200 OK\r\nat: PUT http://x / -1 <nil>\r\ntrailer: x-sum=4\r\ncontent-length: 13\r\n\r\nabc0123456789" + lastReply,
		},
		{
			"empty lines before", "\r\n\r\nGET /a HTTP/1.1\r\nhost: x\r\n\r\n\r\n" + last,
			"HTTP/1.1 200 OK\r\nat: GET http://x /a -1 <nil>\r\ncontent-length: 0\r\n\r\n" + lastReply,
		},
		{
			"absolute form overrides host", "GET https://b:1?q HTTP/1.1\r\nhost: x\r\n\r\n" + last,
			"HTTP/1.1 200 OK\r\nat: GET https://b:1 ?q -1 <nil>\r\ncontent-length: 0\r\n\r\n" + lastReply,
		},
		{
			"absolute form overrides a malformed host", "GET http://b/ HTTP/1.1\r\nhost: a b\r\n\r\n" + last,
			"HTTP/1.1 200 OK\r\nat: GET http://b / -1 <nil>\r\ncontent-length: 0\r\n\r\n" + lastReply,
		},
		{
			"empty host", "GET /a HTTP/1.1\r\nhost:\r\n\r\n" + last,
			"HTTP/1.1 200 OK\r\nat: GET http:// /a -1 <nil>\r\ncontent-length: 0\r\n\r\n" + lastReply,
		},
		{
			"options", "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\nOPTIONS http://y HTTP/1.1\r\nhost: x\r\n\r\n" + last,
			"HTTP/1.1 200 OK\r\nat: OPTIONS http://x * -1 <nil>\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\nat: OPTIONS http://y / -1 <nil>\r\ncontent-length: 0\r\n\r\n" + lastReply,
		},
		{"HTTP/1.0", "GET /a HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\nat: GET http:// /a -1 <nil>\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"},
		{
			"HTTP/1.0 kept", "GET /a HTTP/1.0\r\nhost: x\r\nconnection: Keep-Alive\r\n\r\nGET /len HTTP/1.0\r\n\r\n",
			"HTTP/1.0 200 OK\r\nat: GET http://x /a -1 <nil>\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\nHTTP/1.0 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc",
		},
		{"HTTP/1.0 until close", "GET /stream HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nabcdefg"},
		{
			"stream", "GET /stream HTTP/1.1\r\nhost: x\r\n\r\n" + last,
			"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\nx-t: 1\r\n\r\n" + lastReply,
		},
		{
			"head", "HEAD /stream HTTP/1.1\r\nhost: x\r\n\r\nHEAD /len HTTP/1.1\r\nhost: x\r\n\r\n" + last,
			"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n" + lastReply,
		},
		{"204", "GET /none HTTP/1.1\r\nhost: x\r\n\r\n" + last, "HTTP/1.1 204 No Content\r\n\r\n" + lastReply},
		{"103", "GET /hints HTTP/1.1\r\nhost: x\r\n\r\n" + last, "HTTP/1.1 103 \r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" + lastReply},
		{"response can't be split", "GET /evil HTTP/1.1\r\nhost: x\r\n\r\n" + last, "HTTP/1.1 200 OK\r\nx-ok: 1\r\ncontent-length: 0\r\n\r\n" + lastReply},
		{
			"hop by hop", "GET /a HTTP/1.1\r\nhost: x\r\nConnection: X-Secret, te\r\nX-Secret: 1\r\nkeep-alive: 5\r\nproxy-connection: close\r\nTE: gzip\r\nx-Other: 2\r\nexpect: wonders\r\nupgrade: h2c\r\nhttp2-settings: a\r\n\r\n" + last,
			"HTTP/1.1 200 OK\r\nat: GET http://x /a -1 <nil>\r\ngot: x-other=2\r\ngot: expect=wonders\r\ncontent-length: 0\r\n\r\n" + lastReply,
		},
		{
			"te trailers", "GET /a HTTP/1.1\r\nhost: x\r\nTE: trailers, deflate;q=0.5\r\n\r\n" + last,
			"HTTP/1.1 200 OK\r\nat: GET http://x /a -1 <nil>\r\ngot: te=trailers\r\ncontent-length: 0\r\n\r\n" + lastReply,
		},
		{"unread body", "POST /len HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nabcde" + last, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc" + lastReply},
		{
			"expect", "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-Continue\r\n\r\nab" + last,
			"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nat: POST http://x /a 2 <nil>\r\ncontent-length: 2\r\n\r\nab" + lastReply,
		},
		{
			"expectation not met", "POST /len HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n",
			"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc",
		},
	}
	addr := listen(t, h, h1.ServerConfig{})
	for _, tt := range tests {
		for _, slow := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s slow=%v", tt.name, slow), func(t *testing.T) {
				c := dial(t, addr)
				if slow {
					go func() {
						for i := range len(tt.in) {
							_, _ = c.Write([]byte(tt.in[i : i+1]))
						}
					}()
				} else {
					_, _ = c.Write([]byte(tt.in))
				}
				got, err := io.ReadAll(c)
				want := strings.ReplaceAll(tt.out, "103 \r", "103 Early Hints\r")
				if string(got) != want || err != nil {
					t.Errorf("got %q\nwant %q (%v)", got, want, err)
				}
			})
		}
	}
}

func TestServerRefuses(t *testing.T) {
	long := strings.Repeat("a", 70<<10)
	tests := []struct {
		name, in string
		status   int
	}{
		{"content-length and transfer-encoding", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"two content-lengths", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc", 400},
		{"list of content-lengths", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3, 3\r\n\r\nabc", 400},
		{"signed content-length", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +3\r\n\r\nabc", 400},
		{"hexadecimal content-length", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0x3\r\n\r\nabc", 400},
		{"empty content-length", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length:\r\n\r\nabc", 400},
		{"huge content-length", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\nabc", 400},
		{"gzip, chunked", "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
		{"xchunked", "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
		{"identity", "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: identity\r\n\r\n", 501},
		{"chunked twice", "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"vertical tab in transfer-encoding", "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400},
		{"transfer-encoding in 1.0", "POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"folding", "GET / HTTP/1.1\r\nhost: x\r\nfoo: a\r\n b\r\n\r\n", 400},
		{"folding with a tab", "GET / HTTP/1.1\r\nhost: x\r\nfoo: a\r\n\tb\r\n\r\n", 400},
		{"first field folded", "GET / HTTP/1.1\r\n host: x\r\n\r\n", 400},
		{"blank before colon", "GET / HTTP/1.1\r\nhost : x\r\n\r\n", 400},
		{"no colon", "GET / HTTP/1.1\r\nhost: x\r\nfoo\r\n\r\n", 400},
		{"empty name", "GET / HTTP/1.1\r\nhost: x\r\n: a\r\n\r\n", 400},
		{"name with parenthesis", "GET / HTTP/1.1\r\nhost: x\r\nfo(o: a\r\n\r\n", 400},
		{"name beyond ASCII", "GET / HTTP/1.1\r\nhost: x\r\nfo\xc3\xa4: a\r\n\r\n", 400},
		{"NUL in a value", "GET / HTTP/1.1\r\nhost: x\r\nfoo: a\x00b\r\n\r\n", 400},
		{"DEL in a value", "GET / HTTP/1.1\r\nhost: x\r\nfoo: a\x7fb\r\n\r\n", 400},
		{"bare CR in a value", "GET / HTTP/1.1\r\nhost: x\r\nfoo: a\rb: c\r\n\r\n", 400},
		{"bare LF", "GET / HTTP/1.1\nhost: x\n\n", 400},
		{"bare LF after a field", "GET / HTTP/1.1\r\nhost: x\r\nfoo: a\nb: c\r\n\r\n", 400},
		{"bare LF at the end", "GET / HTTP/1.1\r\nhost: x\r\n\n", 400},
		{"CRCRLF", "GET / HTTP/1.1\r\r\nhost: x\r\n\r\n", 400},
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"two hosts", "GET / HTTP/1.1\r\nhost: x\r\nHost: x\r\n\r\n", 400},
		{"host with a path", "GET / HTTP/1.1\r\nhost: x/y\r\n\r\n", 400},
		{"malformed host and a CONNECT", "CONNECT x:1 HTTP/1.1\r\nhost: a b\r\n\r\n", 400},
		{"host with a user", "GET / HTTP/1.1\r\nhost: u@x\r\n\r\n", 400},
		{"method with a colon", "G:T / HTTP/1.1\r\nhost: x\r\n\r\n", 400},
		{"no target", "GET  HTTP/1.1\r\nhost: x\r\n\r\n", 400},
		{"two blanks", "GET  / HTTP/1.1\r\nhost: x\r\n\r\n", 400},
		{"tab", "GET\t/\tHTTP/1.1\r\nhost: x\r\n\r\n", 400},
		{"blank after the version", "GET / HTTP/1.1 \r\nhost: x\r\n\r\n", 400},
		{"relative target", "GET a HTTP/1.1\r\nhost: x\r\n\r\n", 400},
		{"target beyond ASCII", "GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", 400},
		{"control character in the target", "GET /\x01 HTTP/1.1\r\nhost: x\r\n\r\n", 400},
		{"star", "GET * HTTP/1.1\r\nhost: x\r\n\r\n", 400},
		{"scheme", "GET ftp://x/ HTTP/1.1\r\nhost: x\r\n\r\n", 400},
		{"user in the target", "GET http://u@x/ HTTP/1.1\r\nhost: x\r\n\r\n", 400},
		{"CONNECT without a port", "CONNECT x HTTP/1.1\r\nhost: x\r\n\r\n", 400},
		{"CONNECT with a body", "CONNECT x:1 HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc", 400},
		{"HTTP/0.9", "GET /\r\n\r\n", 400},
		{"HTTP/2.0", "GET / HTTP/2.0\r\nhost: x\r\n\r\n", 505},
		{"http/1.1", "GET / http/1.1\r\nhost: x\r\n\r\n", 400},
		{"TLS", "\x16\x03\x01\x02\x00", 400},
		{"empty lines", "\r\n\r\n\r\n\r\n\r\n\r\n", 400},
		{"connection names host", "GET / HTTP/1.1\r\nhost: x\r\nconnection: host\r\n\r\n", 400},
		{"connection names x-forwarded-for", "GET / HTTP/1.1\r\nhost: x\r\nconnection: close, X-Forwarded-For\r\n\r\n", 400},
		{"custom method", "FOO / HTTP/1.1\r\nhost: x\r\n\r\n", 400},
		{"method in small letters", "get / HTTP/1.1\r\nhost: x\r\n\r\n", 400},
		{"long target", "GET /" + long + " HTTP/1.1\r\nhost: x\r\n\r\n", 431},
		{"long field", "GET / HTTP/1.1\r\nhost: x\r\nfoo: " + long + "\r\n\r\n", 431},
		{"many fields", "GET / HTTP/1.1\r\nhost: x\r\n" + strings.Repeat("a: b\r\n", 101) + "\r\n", 431},
	}
	var refused int
	addr := listen(t, func(_ context.Context, s httpmsg.ServerStream) {
		t.Errorf("handled %+v", s.Request())
		_ = s.Respond(&httpmsg.Head{Status: 200}, true)
	}, h1.ServerConfig{Refused: func(status int, _ string) { refused = status }})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, addr)
			_, _ = c.Write([]byte(tt.in))
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status || refused != tt.status || !resp.Close {
				t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestServerRefusesBody: the handler sees an error, and nothing that follows is taken for a request.
func TestServerRefusesBody(t *testing.T) {
	for _, tt := range []struct{ name, body string }{
		{"no digits", "\r\nabc\r\n0\r\n\r\n"},
		{"sign", "+3\r\nabc\r\n0\r\n\r\n"},
		{"0x", "0x3\r\nabc\r\n0\r\n\r\n"},
		{"underscore", "1_0\r\nabc\r\n0\r\n\r\n"},
		{"blank before", " 3\r\nabc\r\n0\r\n\r\n"},
		{"blank after", "3 \r\nabc\r\n0\r\n\r\n"},
		{"overflow", "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n"},
		{"bare LF after the size", "3\nabc\r\n0\r\n\r\n"},
		{"bare LF after the data", "3\r\nabc\n0\r\n\r\n"},
		{"bare CR in an extension", "3;a\rb\r\nabc\r\n0\r\n\r\n"},
		{"data too long", "3\r\nabcd\r\n0\r\n\r\n"},
		{"data too short", "3\r\nab\r\n0\r\n\r\n"},
		{"long extension", "3;" + strings.Repeat("a", 4096) + "\r\nabc\r\n0\r\n\r\n"},
		{"many extensions", strings.Repeat("1;"+strings.Repeat("a", 1000)+"\r\nb\r\n", 20) + "0\r\n\r\n"},
		{"folded trailer", "0\r\na: b\r\n c\r\n\r\n"},
		{"trailer with a bare LF", "0\r\na: b\nc: d\r\n\r\n"},
		{"many trailers", "0\r\n" + strings.Repeat("a: b\r\n", 200) + "\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var requests int
			got := make(chan error, 1)
			addr := listen(t, func(_ context.Context, s httpmsg.ServerStream) {
				if requests++; requests > 1 {
					t.Errorf("smuggled %+v", s.Request())
				}
				_, err := io.ReadAll(s)
				got <- err
				_ = s.Respond(&httpmsg.Head{Status: 400, ContentLength: 0}, true)
			}, h1.ServerConfig{})
			c := dial(t, addr)
			_, _ = c.Write([]byte("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + tt.body + "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"))
			if err := <-got; err == nil {
				t.Error("the body was taken")
			}
			_, _ = io.Copy(io.Discard, c)
		})
	}
}

func TestServerTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		connect := func() net.Conn {
			ours, theirs := net.Pipe()
			go func() {
				_ = h1.Serve(t.Context(), theirs, echo, h1.ServerConfig{IdleTimeout: 50 * time.Millisecond, HeaderTimeout: 20 * time.Millisecond})
			}()
			t.Cleanup(func() { ours.Close() })
			return ours
		}
		half := connect()
		_, _ = half.Write([]byte("GET / HT"))
		if got, err := io.ReadAll(half); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 408 ") {
			t.Errorf("half a head: %q, %v", got, err)
		}
		if got, err := io.ReadAll(connect()); err != nil || len(got) > 0 {
			t.Errorf("idle: %q, %v", got, err)
		}
		// Neither limit concerns a body.
		slow := connect()
		_, _ = slow.Write([]byte("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n"))
		time.AfterFunc(150*time.Millisecond, func() { _, _ = slow.Write([]byte("abc")) })
		resp, err := http.ReadResponse(bufio.NewReader(slow), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); string(got) != "abc" {
			t.Errorf("slow body: %q, %v", got, err)
		}
	})
}

func TestServerDrain(t *testing.T) {
	drain, begin := context.WithCancel(t.Context())
	entered, leave := make(chan struct{}), make(chan struct{})
	handler := func(ctx context.Context, s httpmsg.ServerStream) {
		if s.Request().Path == "/wait" {
			close(entered)
			<-leave
		}
		echo(ctx, s)
	}
	cfg := h1.ServerConfig{Drain: drain, IdleTimeout: time.Hour}
	addr := listen(t, handler, cfg)
	idle, used, busy := dial(t, addr), dial(t, addr), dial(t, addr)
	half, theirs := net.Pipe() // what has been written to it has been read
	served := make(chan error, 1)
	go func() { served <- h1.Serve(t.Context(), theirs, handler, cfg) }()
	_, _ = used.Write([]byte("GET / HTTP/1.1\r\nhost: x\r\n\r\n"))
	if _, err := http.ReadResponse(bufio.NewReader(used), nil); err != nil {
		t.Fatal(err)
	}
	_, _ = half.Write([]byte("GET / HTTP/1.1\r\nhost:"))
	_, _ = busy.Write([]byte("GET /wait HTTP/1.1\r\nhost: x\r\n\r\n"))
	<-entered
	begin()
	for name, c := range map[string]net.Conn{"idle": idle, "used": used} {
		if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	close(leave)
	_, _ = half.Write([]byte(" x\r\n\r\n"))
	for name, c := range map[string]net.Conn{"busy": busy, "half": half} {
		if got, err := io.ReadAll(c); err != nil || !strings.Contains(string(got), "connection: close\r\n") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	<-served
}

func TestServerGone(t *testing.T) {
	for _, mode := range []string{"closed", "reset", "kept"} {
		t.Run(mode, func(t *testing.T) {
			gone := make(chan bool, 1)
			addr := listen(t, func(ctx context.Context, s httpmsg.ServerStream) {
				if s.Request().Path != "/wait" {
					echo(ctx, s)
					return
				}
				limit := 30 * time.Second
				if mode == "kept" {
					limit = 300 * time.Millisecond
				}
				select {
				case <-s.Gone():
					gone <- true
				case <-time.After(limit):
					gone <- false
				}
				_ = s.Respond(&httpmsg.Head{Status: 200}, true)
			}, h1.ServerConfig{})
			c := dial(t, addr)
			_, _ = c.Write([]byte("GET /wait HTTP/1.1\r\nhost: x\r\n\r\n"))
			switch mode {
			case "closed":
				c.Close()
			case "reset":
				c.SetLinger(0)
				c.Close()
			}
			if got := <-gone; got != (mode != "kept") {
				t.Errorf("gone: %v", got)
			}
			if mode == "kept" { // and the connection goes on
				r := bufio.NewReader(c)
				if _, err := http.ReadResponse(r, nil); err != nil {
					t.Fatal(err)
				}
				_, _ = c.Write([]byte("GET / HTTP/1.1\r\nhost: x\r\n\r\n"))
				if _, err := http.ReadResponse(r, nil); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestServerUpgrade(t *testing.T) {
	tunnelled := func(_ context.Context, s httpmsg.ServerStream) {
		r := s.Request()
		h := &httpmsg.Head{Status: 200, ContentLength: -1}
		if r.Upgrade != "" {
			h.Status = 101
			h.Header.Add("sec-websocket-accept", "abc")
		}
		if r.Path == "/no" {
			h.Status, h.ContentLength = 403, 0
			_ = s.Respond(h, true)
			return
		}
		_ = s.Gone()
		if err := s.Respond(h, false); err != nil {
			t.Error(err)
		}
		raw, err := s.Tunnel()
		if err != nil {
			t.Error(err)
			return
		}
		_ = s.Gone() // has no say any more
		_, _ = io.Copy(raw, raw)
		_ = raw.CloseWrite()
	}
	addr := listen(t, tunnelled, h1.ServerConfig{})
	for _, tt := range []struct{ name, in, out string }{
		{
			"websocket", "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\r\nhello",
			"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: abc\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nhello",
		},
		{
			"refused", "GET /no HTTP/1.1\r\nhost: x\r\nconnection: close, Upgrade\r\nupgrade: websocket\r\n\r\n",
			"HTTP/1.1 403 Forbidden\r\nsec-websocket-accept: abc\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
		},
		{"connect", "CONNECT y:80 HTTP/1.1\r\nhost: x\r\n\r\nhello", "HTTP/1.1 200 OK\r\n\r\nhello"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, addr)
			_, _ = c.Write([]byte(tt.in))
			c.CloseWrite()
			if got, err := io.ReadAll(c); string(got) != tt.out || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// TestEarlyResponse: the server answers a request of which it wants nothing, and the client gets to read that.
func TestEarlyResponse(t *testing.T) {
	addr := listen(t, func(_ context.Context, s httpmsg.ServerStream) {
		_ = s.Respond(&httpmsg.Head{Status: 413, ContentLength: 0}, true)
	}, h1.ServerConfig{})
	c := dial(t, addr)
	go func() {
		_, _ = c.Write([]byte("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n"))
		_, _ = c.Write(make([]byte, 200<<10))
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 413 {
		t.Fatal(resp, err)
	}
}

// TestUnfinishedRequest: a client that does not finish what nobody wanted to read is not waited for.
func TestUnfinishedRequest(t *testing.T) {
	addr := listen(t, func(_ context.Context, s httpmsg.ServerStream) {
		_ = s.Respond(&httpmsg.Head{Status: 200, ContentLength: 0}, true)
	}, h1.ServerConfig{})
	for _, framing := range []string{"content-length: 100\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nab"} {
		c := dial(t, addr)
		_, _ = c.Write([]byte("POST / HTTP/1.1\r\nhost: x\r\n" + framing))
		c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200 ") {
			t.Errorf("%q %v", got, err)
		}
	}
}

// TestInterrupt ends the wait for a body that does not come; the answer is still sent, and is the last.
func TestInterrupt(t *testing.T) {
	result := make(chan error, 1)
	addr := listen(t, func(_ context.Context, s httpmsg.ServerStream) {
		waiting := make(chan struct{})
		go func() {
			<-waiting
			s.Interrupt()
		}()
		_, err := s.Read(make([]byte, 2))
		close(waiting)
		if err == nil {
			_, err = s.Read(make([]byte, 2))
		}
		result <- err
		_ = s.Respond(&httpmsg.Head{Status: 408, ContentLength: 0}, true)
	}, h1.ServerConfig{HeaderTimeout: time.Hour}) // a deadline that is lifted for the body
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab")
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || r.StatusCode != 408 || !r.Close {
		t.Errorf("%+v, %v", r, err)
	}
	if err := <-result; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}
