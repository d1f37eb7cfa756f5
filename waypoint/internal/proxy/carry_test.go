package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
)

func (b *bed) clusterStats(name string) upstream.ClusterStats {
	for _, c := range b.server.Clusters() {
		if c.Name == name {
			return c.Stats
		}
	}
	return upstream.ClusterStats{}
}

func TestWeights(t *testing.T) {
	b := newBed(t)
	v1, v3 := b.backend("reviews", say("v1")), b.backend("reviews", say("v3"))
	b.clusters["v1"], b.clusters["v3"] = []*backend{v1}, []*backend{v3}
	b.routes = `{"match":{"prefix":"/"},"name":"split","route":{"timeout":"0s","weighted_clusters":{"clusters":[{"name":"v1","weight":90},{"name":"v3","weight":10}]}}}`
	b.apply()
	c := b.client("productpage", false)
	counts := map[string]int{}
	for range 1000 {
		_, body := get(t, c, "/")
		counts[body]++
	}
	if counts["v3"] < 30 || counts["v3"] > 170 || // seven standard deviations
		counts["v1"]+counts["v3"] != 1000 {
		t.Errorf("%v", counts)
	}
}

func TestBigBodiesBothWays(t *testing.T) {
	for _, test := range []struct {
		name     string
		h2       bool
		protocol string
	}{
		{"1 to 1", false, upstreamHTTP1}, {"1 to 2", false, upstreamHTTP2}, {"2 to 1", true, upstreamHTTP1}, {"2 to 2", true, upstreamSame},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBed(t)
			pod := b.backend("reviews", func(w http.ResponseWriter, r *http.Request) {
				// Echo as it comes: both directions are under way at once.
				_ = http.NewResponseController(w).EnableFullDuplex()
				w.WriteHeader(http.StatusOK)
				_, _ = io.Copy(w, r.Body)
			})
			b.protocol = test.protocol
			b.apply(pod)
			payload := make([]byte, 20<<20)
			for i := range payload {
				payload[i] = byte(i >> 7)
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+host+"/", io.NopCloser(bytes.NewReader(payload)))
			if err != nil {
				t.Fatal(err)
			}
			response, err := b.client("productpage", test.h2).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			sum := sha256.New()
			n, err := io.Copy(sum, response.Body)
			if want := sha256.Sum256(payload); err != nil || n != int64(len(payload)) || !bytes.Equal(sum.Sum(nil), want[:]) {
				t.Errorf("%d of %d bytes came back, %v", n, len(payload), err)
			}
			if r := b.records.last(t, 1); r.Sent != uint64(n) || r.Received != uint64(n) {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestSlowReadersHoldTheHostUp(t *testing.T) {
	b := newBed(t)
	var sent int
	stopped := make(chan struct{})
	pod := b.backend("reviews", func(w http.ResponseWriter, r *http.Request) {
		defer close(stopped)
		chunk := make([]byte, 64<<10)
		for r.Context().Err() == nil {
			n, err := w.Write(chunk)
			if sent += n; err != nil {
				return
			}
		}
	})
	b.apply(pod)
	response, err := b.client("productpage", false).Get("http://" + host + "/")
	if err != nil {
		t.Fatal(err)
	}
	// Nothing is read. What lies between fills up: windows of 4 MiB on either side of the proxy, and sockets' buffers.
	select {
	case <-stopped:
		t.Error("the pod could send without end")
	case <-time.After(time.Second):
	}
	response.Body.Close()
	select {
	case <-stopped:
	case <-time.After(30 * time.Second):
		t.Fatal("the pod was not told")
	}
	if sent > 64<<20 {
		t.Errorf("%d bytes were buffered", sent)
	}
}

func TestResponsesAreNotHeldBack(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		b := newBed(t)
		next := make(chan struct{})
		pod := b.backend("reviews", func(w http.ResponseWriter, _ *http.Request) {
			control := http.NewResponseController(w)
			_ = control.Flush() // the head alone
			for i := range 3 {
				<-next
				fmt.Fprintf(w, "event %d\n", i)
				_ = control.Flush()
			}
		})
		b.protocol = upstreamSame
		b.apply(pod)
		response, err := b.client("productpage", h2).Get("http://" + host + "/")
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(response.Body)
		for i := range 3 {
			next <- struct{}{}
			if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("event %d\n", i) {
				t.Errorf("%q, %v", line, err)
			}
		}
		response.Body.Close()
	}
}

func TestTrailersPass(t *testing.T) {
	b := newBed(t)
	pod := b.backend("reviews", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprint(w, "body")
		w.Header().Set("X-Sum", r.Trailer.Get("X-Client"))
	})
	b.protocol = upstreamHTTP2
	b.apply(pod)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+host+"/", io.NopCloser(strings.NewReader("data")))
	if err != nil {
		t.Fatal(err)
	}
	r.Trailer = http.Header{"X-Client": {"42"}}
	response, err := b.client("productpage", true).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.ReadAll(response.Body); err != nil || response.Trailer.Get("X-Sum") != "42" {
		t.Errorf("%v, %v", response.Trailer, err)
	}
}

func TestMirror(t *testing.T) {
	b := newBed(t)
	type seen struct{ host, path, body string }
	copies := make(chan seen, 10)
	main := b.backend("reviews", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %d", r.Host, len(body))
	})
	shadow := b.backend("reviews", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		copies <- seen{r.Host, r.URL.Path, string(body)}
		w.WriteHeader(http.StatusInternalServerError)
	})
	b.clusters["shadow"] = []*backend{shadow}
	b.routes = to(`,"request_mirror_policies":[{"cluster":"shadow"}]`)
	b.apply(main)
	for _, size := range []int{0, 10, 100 << 10} {
		body := strings.Repeat("b", size)
		status, text, err := try(t.Context(), b.client("productpage", false), http.MethodPost, "/m", strings.NewReader(body))
		if err != nil || status != 200 || text != fmt.Sprintf("%s:9080 %d", host, size) {
			t.Errorf("%d %q %v", status, text, err)
		}
		select {
		case c := <-copies:
			if c.host != host+"-shadow:9080" || c.path != "/m" || c.body != body {
				t.Errorf("%s %s, %d bytes", c.host, c.path, len(c.body))
			}
		case <-time.After(30 * time.Second):
			t.Fatal("no copy came")
		}
	}
}

func TestMirrorsThatHangHoldNobodyUp(t *testing.T) {
	b := newBedWith(t, Limits{MaxMirrors: 1, DrainGrace: time.Millisecond})
	main := b.backend("reviews", say("ok"))
	hang := b.backend("reviews", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	b.clusters["shadow"] = []*backend{hang}
	b.routes = to(`,"request_mirror_policies":[{"cluster":"shadow"}]`)
	b.apply(main)
	c := b.client("productpage", false)
	for range 5 {
		if status, _ := get(t, c, "/"); status != 200 {
			t.Errorf("%d", status)
		}
	}
	until(t, "one copy is sent, the others are not", func() bool {
		s := b.server.Stats()
		return s.MirrorsSent == 1 && s.MirrorsDropped == 4
	})
}

func TestWebSocket(t *testing.T) {
	b := newBed(t)
	pod := b.backend("reviews", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") == "" {
			http.Error(w, "no upgrade", http.StatusBadRequest)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw)
	})
	b.apply(pod)
	stream, _, err := b.dial("productpage").Connect(t.Context(), &hbone.Request{Authority: vip})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	fmt.Fprintf(stream, "GET /ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n", host)
	in := bufio.NewReader(stream)
	response, err := http.ReadResponse(in, nil)
	if err != nil || response.StatusCode != 101 || !strings.EqualFold(response.Header.Get("Upgrade"), "websocket") {
		t.Fatalf("%+v, %v", response, err)
	}
	for _, word := range []string{"one", "two"} {
		fmt.Fprint(stream, word)
		got := make([]byte, len(word))
		if _, err := io.ReadFull(in, got); err != nil || string(got) != word {
			t.Errorf("%q, %v", got, err)
		}
	}
	if err := stream.CloseWrite(); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	if r := b.records.last(t, 1); r.Status != 101 || r.Flags != "-" || r.Sent != 6 || r.Received != 6 {
		t.Errorf("%+v", r)
	}
}

func TestTCPChain(t *testing.T) {
	b := newBed(t)
	pod := b.rawBackend("reviews", func(c net.Conn) { _, _ = io.Copy(c, c) })
	b.apply(pod)
	stream, _, err := b.dial("productpage").Connect(t.Context(), &hbone.Request{Authority: tcpVIP})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	payload := bytes.Repeat([]byte("0123456789"), 100<<10)
	go func() {
		_, _ = stream.Write(payload)
		_ = stream.CloseWrite()
	}()
	if got, err := io.ReadAll(stream); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("%d of %d bytes, %v", len(got), len(payload), err)
	}
	r := b.records.last(t, 1)
	if r.Kind != KindConnection || r.Flags != "-" || r.Sent != uint64(len(payload)) || r.Received != uint64(len(payload)) || r.Cluster != service {
		t.Errorf("%+v", r)
	}
}

func TestRefusedTunnels(t *testing.T) {
	b := newBed(t)
	dead := b.newBackend("reviews")
	b.apply(dead)
	cc := b.dial("productpage")
	for i, test := range []struct {
		authority string
		status    int
		flags     string
	}{{"10.96.0.9:80", 503, "NR"}, {"10.96.0.1:1", 503, "NR"}, {"nonsense", 400, "DPE"}, {tcpVIP, 503, "UF,URX"}} {
		_, response, err := cc.Connect(t.Context(), &hbone.Request{Authority: test.authority})
		if err == nil || response == nil || response.Status != test.status {
			t.Errorf("%s: %+v, %v", test.authority, response, err)
		}
		if r := b.records.last(t, i+1); sorted(r.Flags) != test.flags || r.Termination == "" && r.Failure == "" {
			t.Errorf("%s: %+v", test.authority, r)
		}
	}
}

// healthServer answers gRPC health checks.
type healthServer struct {
	grpc_health_v1.UnimplementedHealthServer
}

func (healthServer) Check(_ context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if r.GetService() == "sick" {
		return nil, status.Error(codes.NotFound, "unknown")
	}
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

func (healthServer) Watch(_ *grpc_health_v1.HealthCheckRequest, s grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	for range 3 {
		if err := s.Send(&grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}); err != nil {
			return err
		}
	}
	return nil
}

func TestGRPC(t *testing.T) {
	b := newBed(t)
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, healthServer{})
	conn := b.grpc(server)
	client := grpc_health_v1.NewHealthClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if r, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil || r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("%v, %v", r, err)
	}
	if r := b.records.last(t, 1); r.GRPC != 0 || r.Requests != 1 || r.Responses != 1 || r.Status != 200 {
		t.Errorf("%+v", r)
	}
	if _, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "sick"}); status.Code(err) != codes.NotFound {
		t.Errorf("%v", err)
	}
	if r := b.records.last(t, 2); r.GRPC != int(codes.NotFound) {
		t.Errorf("%+v", r)
	}
	watch, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		if _, err := watch.Recv(); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			break
		}
		n++
	}
	if r := b.records.last(t, 3); n != 3 || r.Responses != 3 || r.GRPC != 0 {
		t.Errorf("%d messages, %+v", n, r)
	}
	b.endpoints() // a refusal is gRPC's, too
	if _, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("%v", err)
	}
}

func TestGateway(t *testing.T) {
	b := newBed(t)
	pod := b.backend("reviews", say("hello"))
	b.apply(pod)
	for _, h2 := range []bool{false, true} {
		transport := &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP1(!h2)
		transport.Protocols.SetUnencryptedHTTP2(h2)
		r, err := (&http.Client{Transport: transport}).Get("http://" + b.server.Address("0.0.0.0_8080").String() + "/x")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != 200 || string(body) != "hello" {
			t.Errorf("%d %q", r.StatusCode, body)
		}
		transport.CloseIdleConnections()
	}
}
