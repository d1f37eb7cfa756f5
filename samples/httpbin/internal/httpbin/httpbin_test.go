package httpbin

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func do(method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	New("pod-1").ServeHTTP(w, r)
	return w
}

func TestRoutes(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	for _, c := range []struct {
		method, target, body string
		header               []string
		status               int
		contains             string // in the body, spaces removed
	}{
		{"GET", "/", "", nil, 200, "<title>httpbin"},
		{"GET", "/get?a=1&a=2", "", []string{"X-A", "b"}, 200, `"args":{"a":["1","2"]},"headers":{"Host":["example.com"],"X-A":["b"]},"method":"GET","origin":"192.0.2.1","url":"http://example.com/get?a=1&a=2"`},
		{"POST", "/post", "a=1", []string{"Content-Type", form}, 200, `"form":{"a":["1"]}`},
		{"PUT", "/put", `{"x":1}`, []string{"Content-Type", "application/json"}, 200, `"json":{"x":1}`},
		{"PATCH", "/patch", "hi", nil, 200, `"data":"hi"`},
		{"DELETE", "/delete", "\xff", nil, 200, `data:application/octet-stream;base64,/w==`},
		{"POST", "/post", "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nhi\r\n--b--\r\n", []string{"Content-Type", "multipart/form-data; boundary=b"}, 200, `"files":{"f":["hi"]}`},
		{"POST", "/post", "--b", []string{"Content-Type", "multipart/form-data; boundary=b"}, 400, "multipart"},
		{"POST", "/get", "", nil, 405, ""},
		{"HEAD", "/anything/x/y", "", nil, 200, ""},
		{"OPTIONS", "/anything", "", nil, 200, `"method":"OPTIONS"`},
		{"GET", "/headers", "", []string{"X-Forwarded-Client-Cert", "one"}, 200, `"X-Forwarded-Client-Cert":["one"]`},
		{"GET", "/ip", "", []string{"X-Forwarded-For", "10.1.1.1, 10.2.2.2"}, 200, `"origin":"10.1.1.1"`},
		{"GET", "/user-agent", "", []string{"User-Agent", "me"}, 200, `"user-agent":"me"`},
		{"GET", "/hostname", "", nil, 200, `"hostname":"pod-1"`},
		{"GET", "/status/503", "", nil, 503, ""},
		{"POST", "/status/418", "", nil, 418, "teapot"},
		{"GET", "/status/200:0,555:1", "", nil, 555, ""},
		{"GET", "/status/100", "", nil, 400, "from200to999"},
		{"GET", "/status/200:x", "", nil, 400, "weight"},
		{"GET", "/delay/0", "", nil, 200, `"method":"GET"`},
		{"GET", "/delay/x", "", nil, 400, "seconds"},
		{"GET", "/bytes/0", "", nil, 200, ""},
		{"GET", "/bytes/102401", "", nil, 400, "102400"},
		{"GET", "/bytes/1?seed=x", "", nil, 400, "seed"},
		{"GET", "/stream-bytes/5?chunk_size=0", "", nil, 400, "chunk_size"},
		{"GET", "/drip?numbytes=3&duration=0&code=201", "", nil, 201, "***"},
		{"GET", "/drip?code=1", "", nil, 400, "code"},
		{"GET", "/redirect/0", "", nil, 400, "redirect"},
		{"GET", "/redirect-to", "", nil, 400, "url"},
		{"GET", "/redirect-to?url=/x&status_code=200", "", nil, 400, "status_code"},
		{"GET", "/bearer", "", nil, 401, ""},
		{"GET", "/bearer", "", []string{"Authorization", "Bearer tok"}, 200, `"token":"tok"`},
		{"GET", "/basic-auth/u/p", "", nil, 401, `"authenticated":false`},
		{"GET", "/basic-auth/u/p", "", []string{"Authorization", "Basic dTpw"}, 200, `"authenticated":true`},
		{"GET", "/cookies", "", []string{"Cookie", "a=b"}, 200, `"cookies":{"a":"b"}`},
		{"GET", "/base64/aXN0aG11cw==", "", nil, 200, "isthmus"},
		{"GET", "/base64/%21", "", nil, 400, "base64"},
		{"GET", "/json", "", nil, 200, "slideshow"},
		{"GET", "/html", "", nil, 200, "<h1>"},
		{"GET", "/response-headers?X-A=1", "", nil, 200, `"X-A":["1"]`},
		{"GET", "/websocket/echo", "", nil, 400, "handshake"},
		{"GET", "/nothing", "", nil, 404, ""},
	} {
		w := do(c.method, c.target, c.body, c.header...)
		got := strings.NewReplacer(" ", "", "\n", "").Replace(w.Body.String())
		if w.Code != c.status || !strings.Contains(got, c.contains) {
			t.Errorf("%s %s: %d %.400s; want %d %s", c.method, c.target, w.Code, got, c.status, c.contains)
		}
	}
}

func TestResponseHeaders(t *testing.T) {
	for _, c := range []struct{ target, name, want string }{
		{"/status/401", "WWW-Authenticate", `Basic realm="Fake Realm"`},
		{"/status/302", "Location", "/redirect/1"},
		{"/redirect/1", "Location", "/get"},
		{"/redirect/3", "Location", "/relative-redirect/2"},
		{"/absolute-redirect/2", "Location", "http://example.com/absolute-redirect/1"},
		{"/redirect-to?url=http://other.test/&status_code=307", "Location", "http://other.test/"},
		{"/cookies/set?a=b", "Set-Cookie", "a=b; Path=/; HttpOnly"},
		{"/cookies/delete?a", "Set-Cookie", "a=; Path=/; Max-Age=0; HttpOnly"},
		{"/response-headers?X-A=1", "X-A", "1"},
		{"/deflate", "Content-Encoding", "deflate"},
	} {
		if got := do("GET", c.target, "").Header().Get(c.name); got != c.want {
			t.Errorf("%s: %s is %q, want %q", c.target, c.name, got, c.want)
		}
	}
}

func TestData(t *testing.T) {
	a, b := do("GET", "/bytes/1000?seed=1", "").Body, do("GET", "/stream-bytes/1000?seed=1&chunk_size=1000", "").Body
	if a.Len() != 1000 || !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Errorf("same seed: %d and %d bytes that differ", a.Len(), b.Len())
	}
	if n := do("GET", "/stream-bytes/25000", "").Body.Len(); n != 25000 {
		t.Errorf("stream-bytes: %d", n)
	}
	if n := strings.Count(do("GET", "/stream/3", "").Body.String(), "\n"); n != 3 {
		t.Errorf("stream: %d lines", n)
	}
	z, err := gzip.NewReader(do("GET", "/gzip", "").Body)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.NewDecoder(z).Decode(&got); err != nil || got["encoding"] != "gzip" {
		t.Errorf("gzip: %v %v", got, err)
	}
	var id struct{ UUID string }
	if err := json.Unmarshal(do("GET", "/uuid", "").Body.Bytes(), &id); err != nil || len(id.UUID) != 36 || id.UUID[14] != '4' {
		t.Errorf("uuid %q %v", id.UUID, err)
	}
}

func TestChoose(t *testing.T) {
	choices, err := parseCodes("200:3,503:1")
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[float64]int{0: 200, 0.74: 200, 0.75: 503, 0.99: 503} {
		if got := choose(choices, at); got != want {
			t.Errorf("at %v: %d, want %d", at, got, want)
		}
	}
}

func TestTimes(t *testing.T) {
	for target, want := range map[string]time.Duration{
		"/delay/2.5": 2500 * time.Millisecond, "/delay/1e300": maxDelay, "/drip?delay=1&duration=4&numbytes=5": 5 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			if w := do("GET", target, ""); w.Code != 200 || time.Since(start) != want {
				t.Errorf("%s: %d after %v, want %v", target, w.Code, time.Since(start), want)
			}
		})
	}
}

func TestWebSocketEcho(t *testing.T) {
	srv := httptest.NewServer(New(""))
	defer srv.Close()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// Key and answer are the example of RFC 6455, section 1.3.
	_, _ = io.WriteString(c, "GET /websocket/echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("handshake: %v %v", res, err)
	}
	for _, f := range []struct{ send, want string }{
		{"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "\x81\x05Hello"}, // section 5.7
		{"\x89\x80\x00\x00\x00\x00", "\x8a\x00"},                          // ping
		{"\x82\xfe\x01\x00\x00\x00\x00\x00" + strings.Repeat("x", 256), "\x82\x7e\x01\x00" + strings.Repeat("x", 256)},
		{"\x81\x01a", "\x88\x02\x03\xea"}, // not masked: protocol error, and the end
	} {
		_, _ = io.WriteString(c, f.send)
		got := make([]byte, len(f.want))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != f.want {
			t.Fatalf("sent %.12q: got %.12q %v, want %.12q", f.send, got, err, f.want)
		}
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("connection left open after a protocol error")
	}
}
