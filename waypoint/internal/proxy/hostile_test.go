package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/isthmus-mesh/isthmus/pkg/h2"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// gatewayWith puts the gateway in force with more options of its connection manager.
func (b *bed) gatewayWith(options string) {
	b.t.Helper()
	text := strings.Replace(b.gateway(), `"server_name"`, options+`,"server_name"`, 1)
	b.cfg = b.cfg.With(l7.Update{Listeners: map[string]*l7.Listener{"0.0.0.0_8080": compile(b.t, text, &listenerv3.Listener{}, l7.CompileListener)}})
	if err := b.server.SetConfig(b.t.Context(), b.cfg); err != nil {
		b.t.Fatal(err)
	}
}

// raw is a connection to the gateway.
func (b *bed) raw() net.Conn {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.server.Address("0.0.0.0_8080").String())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	return conn
}

// preface begins HTTP/2: a client that lets so much be sent on a stream.
func preface(window uint32) []byte {
	return h2.AppendSettings([]byte(h2.Preface), h2.Setting{ID: h2.SettingInitialWindowSize, Value: window})
}

// ask2 is the head of a request.
func ask2(to []byte, id uint32, end bool, method string, more ...string) []byte {
	var block []byte
	for _, f := range [][2]string{{":method", method}, {":scheme", "http"}, {":path", "/"}, {":authority", host}} {
		block = h2.AppendField(block, f[0], f[1])
	}
	for i := 0; i < len(more); i += 2 {
		block = h2.AppendField(block, more[i], more[i+1])
	}
	return h2.AppendHeaders(to, id, end, block, h2.MinMaxFrameSize)
}

// frames reads frames up to one that ok accepts; an error of the connection ends it, too, and is returned.
func frames(conn net.Conn, ok func(h2.Frame) bool) error {
	r := h2.NewReader(conn, h2.Limits{}, netx.Pool)
	defer r.Release()
	for {
		f, err := r.Next()
		if err != nil || ok(f) {
			return err
		}
	}
}

func isReset(f h2.Frame) bool { return f.Type == h2.FrameRSTStream }

// endless answers for as long as the answer is taken.
func endless(ended chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		piece := make([]byte, 64<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}
}

// patiently tries with longer and longer idle times: what a client does must be under way before the first of them is over.
func patiently(t *testing.T, attempt func(t *testing.T, seconds int) (inTime bool)) {
	t.Helper()
	for seconds := 1; !attempt(t, seconds); seconds *= 4 {
		if seconds > 60 {
			t.Fatal("the machine is too slow to tell anything")
		}
	}
}

// TestClientsThatTakeNothing is a response that its client asks for and does not take: it ends with the stream's idle time, and what it
// holds at the host with it.
func TestClientsThatTakeNothing(t *testing.T) {
	const wide = 1<<31 - 1
	for name, begin := range map[string]func(conn net.Conn){
		"HTTP/1.1":              func(conn net.Conn) { fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host) },
		"HTTP/2, closed window": func(conn net.Conn) { _, _ = conn.Write(ask2(preface(1000), 1, true, "GET")) },
		"HTTP/2, open window": func(conn net.Conn) {
			_, _ = conn.Write(ask2(h2.AppendWindowUpdate(preface(wide), 0, wide-h2.DefaultWindow), 1, true, "GET"))
		},
	} {
		for _, protocol := range []string{upstreamHTTP1, upstreamHTTP2} {
			t.Run(name+", "+protocol, func(t *testing.T) {
				patiently(t, func(t *testing.T, seconds int) bool { return takesNothing(t, protocol, begin, seconds) })
			})
		}
	}
}

func takesNothing(t *testing.T, protocol string, begin func(net.Conn), seconds int) (inTime bool) {
	t.Helper()
	b := newBed(t)
	ended := make(chan struct{}, 1)
	b.protocol = protocol
	b.apply(b.backend("reviews", endless(ended)))
	b.gatewayWith(fmt.Sprintf(`"stream_idle_timeout":"%ds"`, seconds))
	conn := b.raw()
	begin(conn)
	r := b.records.last(t, 1)
	if r.Status == http.StatusGatewayTimeout {
		return false
	}
	if r.Status != 200 || r.Flags != "SI" || r.Details != "stream_idle_timeout" {
		t.Errorf("%+v", r)
	}
	<-ended
	until(t, "the host has no request", func() bool { return b.clusterStats(service).RqActive == 0 })
	until(t, "nothing is open", func() bool { h := b.server.Stats().HTTP[0]; return h.RqActive == 0 && h.IdleTimeout == 1 })
	return true
}

// TestRoutesSayHowLongAClientMayTakeNothing is the same in a tunnel, with the route's time.
func TestRoutesSayHowLongAClientMayTakeNothing(t *testing.T) {
	patiently(t, func(t *testing.T, seconds int) bool {
		b := newBed(t)
		ended := make(chan struct{}, 1)
		b.routes = to(fmt.Sprintf(`,"idle_timeout":"%ds"`, seconds))
		b.apply(b.backend("reviews", endless(ended)))
		response, err := b.client("productpage", false).Get("http://" + host + "/") // which is never read
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		r := b.records.last(t, 1)
		if r.Status == http.StatusGatewayTimeout {
			return false
		}
		if r.Flags != "SI" || r.Details != "stream_idle_timeout" {
			t.Errorf("%+v", r)
		}
		<-ended
		return true
	})
}

// TestIdleStreamsOfClientsThatRead: a client that takes everything, of a host that says no more, is cut likewise.
func TestIdleStreamsOfClientsThatRead(t *testing.T) {
	patiently(t, func(t *testing.T, seconds int) bool {
		b := newBed(t)
		pod := b.backend("reviews", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "begin")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		b.apply(pod)
		b.gatewayWith(fmt.Sprintf(`"stream_idle_timeout":"%ds"`, seconds))
		conn := b.raw()
		_, _ = conn.Write(ask2(preface(h2.DefaultWindow), 1, true, "GET"))
		if err := frames(conn, isReset); err != nil {
			t.Error(err)
		}
		r := b.records.last(t, 1)
		if r.Status == http.StatusGatewayTimeout {
			return false
		}
		if r.Status != 200 || r.Flags != "SI" {
			t.Errorf("%+v", r)
		}
		return true
	})
}

// TestRequestsThatStop is a body that is promised and does not come, small or of unknown length; and a host that says nothing.
func TestRequestsThatStop(t *testing.T) {
	b := newBed(t)
	b.apply(b.backend("reviews", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	b.gatewayWith(`"stream_idle_timeout":"0.3s"`)
	n := 0
	for head, want := range map[string]int{
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n":              408,
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab":            408,
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n": 408,
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab":             504,
	} {
		conn := b.raw()
		fmt.Fprint(conn, head)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || response.StatusCode != want {
			t.Fatalf("%q: %+v, %v", head, response, err)
		}
		n++
		if r := b.records.last(t, n); r.Status != want || r.Flags != "SI" || r.Details != "stream_idle_timeout" {
			t.Errorf("%q: %+v", head, r)
		}
	}
	for _, length := range [][]string{{"content-length", "10"}, nil} {
		conn := b.raw()
		_, _ = conn.Write(ask2(preface(h2.DefaultWindow), 1, false, "POST", length...))
		if err := frames(conn, isReset); err != nil {
			t.Error(err)
		}
		n++
		if r := b.records.last(t, n); r.Status != 408 || r.Flags != "SI" {
			t.Errorf("%v: %+v", length, r)
		}
	}
	until(t, "nothing is open", func() bool { return b.clusterStats(service).RqActive == 0 && b.server.Stats().HTTP[0].RqActive == 0 })
}

// TestRepliesThatNobodyTakes is an answer of the proxy's own to a client without a window.
func TestRepliesThatNobodyTakes(t *testing.T) {
	b := newBed(t)
	b.routes = `{"match":{"prefix":"/"},"name":"default","direct_response":{"status":403,"body":{"inline_string":"no"}}}`
	b.apply(b.backend("reviews", say("hello")))
	b.gatewayWith(`"stream_idle_timeout":"0.3s"`)
	conn := b.raw()
	_, _ = conn.Write(ask2(preface(0), 1, true, "GET"))
	if err := frames(conn, isReset); err != nil {
		t.Error(err)
	}
	if r := b.records.last(t, 1); r.Status != 403 || r.Flags != "SI" || r.Details != "stream_idle_timeout" {
		t.Errorf("%+v", r)
	}
}

// TestSlowHeaderBlocks is TestSlowHeads for HTTP/2: a header block without its end, or less than a frame of it.
func TestSlowHeaderBlocks(t *testing.T) {
	b := newBed(t)
	b.apply(b.backend("reviews", say("hello")))
	b.gatewayWith(`"request_headers_timeout":"0.2s"`)
	whole := ask2(nil, 1, true, "GET")
	open := ask2(nil, 1, true, "GET")
	open[4] &^= byte(h2.FlagEndHeaders)
	for i, sent := range [][]byte{open, whole[:len(whole)-1]} {
		conn := b.raw()
		_, _ = conn.Write(append(preface(h2.DefaultWindow), sent...))
		goodbye := false
		err := frames(conn, func(f h2.Frame) bool {
			goodbye = goodbye || f.Type == h2.FrameGoAway && f.Payload[7] == byte(h2.EnhanceYourCalm)
			return false
		})
		if !goodbye {
			t.Errorf("no GOAWAY, but %v", err)
		}
		if r := b.records.last(t, i+1); r.Status != 408 || r.Details != "request_header_timeout" {
			t.Errorf("%+v", r)
		}
	}
	// A client that is slow between requests only is served.
	conn := b.raw()
	for id := uint32(1); id <= 3; id += 2 {
		begin := []byte(nil)
		if id == 1 {
			begin = preface(h2.DefaultWindow)
		}
		_, _ = conn.Write(ask2(begin, id, true, "GET"))
		b.records.last(t, 2+int(id+1)/2)
	}
	if r := b.records.last(t, 4); r.Status != 200 {
		t.Errorf("%+v", r)
	}
}

// TestConnectionsWithoutRequests end after the idle time, with words or without.
func TestConnectionsWithoutRequests(t *testing.T) {
	b := newBed(t)
	b.apply(b.backend("reviews", say("hello")))
	b.gatewayWith(`"common_http_protocol_options":{"idle_timeout":"0.3s"}`)
	get1 := fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
	for name, sent := range map[string]string{
		"nothing": "", "HTTP/1.1": get1, "HTTP/2, no request": string(preface(0)), "HTTP/2": string(ask2(preface(1000), 1, true, "GET")),
	} {
		conn := b.raw()
		fmt.Fprint(conn, sent)
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		got, err := io.ReadAll(conn)
		if err != nil || strings.HasPrefix(name, "HTTP") == (len(got) == 0) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestRequestsPerConnection is a client that is sent away after so many.
func TestRequestsPerConnection(t *testing.T) {
	b := newBed(t)
	b.apply(b.backend("reviews", say("hello")))
	b.gatewayWith(`"common_http_protocol_options":{"max_requests_per_connection":2}`)
	conn := b.raw()
	in := bufio.NewReader(conn)
	for i := range 2 {
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		if response.StatusCode != 200 || response.Close != (i == 1) {
			t.Errorf("request %d: %+v", i+1, response)
		}
	}
	conn = b.raw()
	_, _ = conn.Write(ask2(ask2(preface(1000), 1, true, "GET"), 3, true, "GET"))
	if err := frames(conn, func(f h2.Frame) bool { return f.Type == h2.FrameGoAway }); err != nil {
		t.Error(err)
	}
}

// TestFloodsAtTheGateway is a client that floods: its connection ends, others are served.
func TestFloodsAtTheGateway(t *testing.T) {
	b := newBed(t)
	b.apply(b.backend("reviews", say("hello")))
	for name, flood := range map[string]func(id uint32) []byte{
		"rapid reset": func(id uint32) []byte { return h2.AppendRSTStream(ask2(nil, id, true, "GET"), id, h2.Cancel) },
		"PING":        func(uint32) []byte { return h2.AppendPing(nil, false, [8]byte{}) },
		"SETTINGS":    func(uint32) []byte { return h2.AppendSettings(nil) },
		"empty DATA": func(id uint32) []byte {
			if id == 1 {
				return ask2(nil, id, false, "POST")
			}
			return h2.FrameHeader{Type: h2.FrameData, StreamID: 1}.Append(nil)
		},
		"CONTINUATION": func(id uint32) []byte {
			if id > 1 {
				return h2.FrameHeader{Type: h2.FrameContinuation, StreamID: 1}.Append(nil)
			}
			begin := ask2(nil, 1, true, "GET")
			begin[4] &^= byte(h2.FlagEndHeaders)
			return begin
		},
	} {
		conn := b.raw()
		_, _ = conn.Write(preface(1000))
		go func() {
			for id := uint32(1); id < 400000; id += 2 {
				if _, err := conn.Write(flood(id)); err != nil {
					return
				}
			}
		}()
		_, _ = io.Copy(io.Discard, conn) // returns only when the connection ends
		if status, _ := get(t, b.client("productpage", true), "/"); status != 200 {
			t.Errorf("%s: another client gets %d", name, status)
		}
	}
}
