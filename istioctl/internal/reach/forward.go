package reach

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// forward connects to a port of a pod through the cluster's API, without a port on this machine in between.
func forward(ctx context.Context, config *rest.Config, to *url.URL, port int) (net.Conn, error) {
	dialer, err := forwardDialer(config, to)
	if err != nil {
		return nil, err
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	// The dialers know no context: what comes after the end is closed.
	go func() {
		conn, err := forwardStreams(dialer, port)
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.conn != nil {
				r.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// forwardDialer speaks over WebSockets, and over SPDY with an API that does not.
func forwardDialer(config *rest.Config, to *url.URL) (httpstream.Dialer, error) {
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	old := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, to)
	websocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(to, config)
	if err != nil {
		return nil, err
	}
	return portforward.NewFallbackDialerForStreaming(websocket, old, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}

func forwardStreams(dialer httpstream.Dialer, port int) (net.Conn, error) {
	connection, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, err
	}
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(port))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	problems, err := connection.CreateStream(headers)
	if err != nil {
		connection.Close()
		return nil, fmt.Errorf("open the stream of errors: %w", err)
	}
	problems.Close() // for writing: there is nothing to say
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := connection.CreateStream(headers)
	if err != nil {
		connection.Close()
		return nil, fmt.Errorf("open the stream of data: %w", err)
	}
	f := &forwarded{stream: data, connection: connection, told: make(chan struct{})}
	go f.listen(problems)
	return f, nil
}

// forwarded is a connection to a port of a pod.
type forwarded struct {
	stream     httpstream.Stream
	connection httpstream.Connection
	once       sync.Once
	told       chan struct{} // closed when the stream of errors has ended
	problem    error         // set before told is closed
}

// listen waits for what the pod's machine says about the connection.
func (f *forwarded) listen(problems io.Reader) {
	defer close(f.told)
	text, err := io.ReadAll(problems)
	if err == nil && len(text) > 0 {
		f.problem = refusal(string(text))
		f.connection.Close() // nothing will come
	}
}

// portError is what the API says of a port that it cannot connect to.
type portError struct{ text string }

func (e *portError) Error() string { return e.text }

// errRefused is the usual one; the API wraps it in what only administrators of the machine can use.
var errRefused = &portError{"connection refused: nothing listens there"}

func refusal(text string) error {
	if strings.Contains(text, "connection refused") {
		return errRefused
	}
	return &portError{strings.TrimSpace(text)}
}

// Read implements net.Conn.
func (f *forwarded) Read(p []byte) (int, error) {
	n, err := f.stream.Read(p)
	if err != nil && n == 0 {
		err = f.reason(err)
	}
	return n, err
}

// reason is why the stream of data failed with an error: that is told on the other stream, which ends with this one.
func (f *forwarded) reason(err error) error {
	select {
	case <-f.told:
		if f.problem != nil {
			return f.problem
		}
	case <-time.After(5 * time.Second):
	}
	return err
}

// Write implements net.Conn.
func (f *forwarded) Write(p []byte) (int, error) {
	n, err := f.stream.Write(p)
	if err != nil {
		err = f.reason(err)
	}
	return n, err
}

// Close implements net.Conn.
func (f *forwarded) Close() error {
	var err error
	f.once.Do(func() { err = f.connection.Close() })
	return err
}

// LocalAddr implements net.Conn.
func (f *forwarded) LocalAddr() net.Addr { return address("here") }

// RemoteAddr implements net.Conn.
func (f *forwarded) RemoteAddr() net.Addr { return address("pod") }

// SetDeadline implements net.Conn. The context of a request ends by closing.
func (f *forwarded) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (f *forwarded) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (f *forwarded) SetWriteDeadline(time.Time) error { return nil }

type address string

func (a address) Network() string { return "portforward" }
func (a address) String() string  { return string(a) }
