package proxy

import (
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

func post(version httpmsg.Version, path, contentType string, length int64) *httpmsg.Head {
	h := &httpmsg.Head{Version: version, Method: "POST", Scheme: "http", Authority: "collector", Path: path, ContentLength: length}
	h.Header.Add("content-type", contentType)
	return h
}

// A request of the proxy's own reaches a cluster as those of clients do: by HBONE.
func TestCall(t *testing.T) {
	b := newBed(t)
	var got atomic.Value
	host := b.backend("collector", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got.Store(r.Method + " " + r.URL.Path + " " + r.Host + " " + r.Header.Get("Content-Type") + " " + string(body))
		if r.URL.Path == "/refused" {
			w.WriteHeader(500)
		}
	})
	b.apply(host)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := b.server.Call(ctx, service, post(httpmsg.HTTP11, "/api/v2/spans", "application/json", 2), []byte("[]")); err != nil {
		t.Fatal(err)
	}
	if want := "POST /api/v2/spans collector application/json []"; got.Load() != want {
		t.Errorf("%q, want %q", got.Load(), want)
	}
	if host.tunnels.Load() == 0 {
		t.Error("it did not come through a tunnel")
	}
	if err := b.server.Call(ctx, service, post(httpmsg.HTTP11, "/refused", "application/json", 2), []byte("[]")); err == nil || !strings.Contains(err.Error(), "500") {
		t.Errorf("a refused request: %v", err)
	}
	if err := b.server.Call(ctx, "nowhere", post(httpmsg.HTTP11, "/", "application/json", 2), []byte("[]")); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("no cluster: %v", err)
	}
	b.apply()
	if err := b.server.Call(ctx, service, post(httpmsg.HTTP11, "/", "application/json", 2), []byte("[]")); err == nil || !strings.Contains(err.Error(), "no healthy host") {
		t.Errorf("no host: %v", err)
	}
}

func TestCallGRPC(t *testing.T) {
	b := newBed(t)
	b.protocol = upstreamHTTP2
	host := b.backend("collector", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
		if r.ProtoMajor != 2 || len(body) < 5 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-5 || r.Header.Get("Te") != "trailers" {
			w.Header().Set("Grpc-Status", "13")
			return
		}
		_, _ = w.Write([]byte{0, 0, 0, 0, 0})
		if r.URL.Path == "/refused" {
			w.Header().Set("Grpc-Status", "7")
			w.Header().Set("Grpc-Message", "not you")
			return
		}
		w.Header().Set("Grpc-Status", "0")
	})
	b.apply(host)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	body := []byte{0, 0, 0, 0, 2, 'o', 'k'}
	call := func(path string) error {
		h := post(httpmsg.HTTP2, path, "application/grpc", -1)
		h.Header.Add("te", "trailers")
		return b.server.Call(ctx, service, h, body)
	}
	if err := call("/opentelemetry.proto.collector.trace.v1.TraceService/Export"); err != nil {
		t.Fatal(err)
	}
	if err := call("/refused"); err == nil || !strings.Contains(err.Error(), "gRPC status 7 not you") {
		t.Errorf("refused: %v", err)
	}
}
