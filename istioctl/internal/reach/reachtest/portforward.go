// Package reachtest has the part of a Kubernetes API that connects to pods, for tests.
package reachtest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// PortForward answers to requests for .../portforward over SPDY, as older APIs do. ports returns what listens on a port, and nil if
// nothing does.
func PortForward(w http.ResponseWriter, r *http.Request, ports func(port string) http.Handler) {
	if r.Method != http.MethodPost {
		http.Error(w, "no WebSockets here", http.StatusBadRequest)
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{"portforward.k8s.io"}); err != nil {
		return
	}
	streams := make(chan httpstream.Stream, 2)
	connection := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if connection == nil {
		return
	}
	defer connection.Close()
	var problems, data httpstream.Stream
	for range 2 {
		select {
		case s := <-streams:
			if s.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
				problems = s
			} else {
				data = s
			}
		case <-connection.CloseChan():
			return
		}
	}
	if handler := ports(data.Headers().Get(corev1.PortHeader)); handler != nil {
		answer(data, handler)
		data.Close()
	} else {
		fmt.Fprint(problems, "error forwarding port: dial tcp4 127.0.0.1:1: connect: connection refused")
	}
	problems.Close()
	<-connection.CloseChan()
}

// answer is one request and its answer.
func answer(data io.ReadWriter, handler http.Handler) {
	request, err := http.ReadRequest(bufio.NewReader(data))
	if err != nil {
		return
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	response := recorder.Result()
	defer response.Body.Close()
	response.ContentLength = int64(recorder.Body.Len())
	_ = response.Write(data) // whoever asked is gone
}
