package main

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

func TestWait(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	if err := wait(t.Context(), []string{"--url", server.URL, "--periodMillis=1"}); err != nil || asked.Load() != 3 {
		t.Error(err, asked.Load())
	}
	asked.Store(-1 << 20)
	if err := wait(t.Context(), []string{"--url=" + server.URL, "--periodMillis=10", "--timeoutSeconds=1"}); err == nil || !strings.Contains(err.Error(), "503") {
		t.Error(err)
	}
	for _, bad := range [][]string{{"--nope"}, {"more"}, {"--timeoutSeconds=0"}} {
		if wait(t.Context(), bad) == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

func TestRequest(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/stats" {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = w.Write([]byte(r.Method + " " + r.URL.Path))
	}))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := request(t.Context(), []string{"--debug-port", port, "post", "stats"}, &out); err != nil || out.String() != "POST /stats" {
		t.Error(err, out.String())
	}
	if err := request(t.Context(), []string{"--debug-port", port, "GET", "/x"}, &out); err == nil || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
	if request(t.Context(), []string{"GET"}, &out) == nil {
		t.Error("no path was accepted")
	}
}
