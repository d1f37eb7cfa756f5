package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	addressType = "type.googleapis.com/istio.workload.Address"
	// Flow-control windows are those of ztunnel.
	streamWindow     = 4 << 20
	connectionWindow = 16 << 20
	// whole is the size up to which a message is kept to look for changes. Of a larger one, the end is kept, for the nonce.
	whole = 1 << 20
	tail  = 4 << 10
)

// ztunnel is one client: a connection with one delta stream. It speaks HTTP/2 itself, and looks at bytes without decoding them, so
// that hundreds cost little.
type ztunnel struct {
	conn   net.Conn
	framer *http2.Framer
	handle func(message []byte, size int)

	// of the reader
	consumed int
	prefix   []byte
	message  []byte
	size     int // of the message that is being read
	left     int

	// guarded by mu
	mu sync.Mutex // writes
}

// dial connects and asks for all addresses. handle is called from run with each response; larger ones are cut to their end.
func dial(addr string, handle func(message []byte, size int)) (*ztunnel, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	z := &ztunnel{conn: conn, handle: handle}
	z.framer = http2.NewFramer(conn, bufio.NewReaderSize(conn, 64<<10))
	z.framer.SetReuseFrames()
	z.framer.SetMaxReadFrameSize(1 << 20)
	if err := z.open(addr); err != nil {
		conn.Close()
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	return z, nil
}

func (z *ztunnel) open(addr string) error {
	var headers bytes.Buffer
	encoder := hpack.NewEncoder(&headers)
	var err error
	for _, h := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":authority", addr},
		{":path", discovery.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		err = errors.Join(err, encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
	}
	_, writeErr := io.WriteString(z.conn, http2.ClientPreface)
	err = errors.Join(err, writeErr,
		z.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow}, http2.Setting{ID: http2.SettingEnablePush}),
		z.framer.WriteWindowUpdate(0, connectionWindow-65535),
		z.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers.Bytes(), EndHeaders: true}))
	if err != nil {
		return err
	}
	meta, err := structpb.NewStruct(map[string]any{"NAMESPACE": "istio-system"})
	if err != nil {
		return err
	}
	node := &corev3.Node{Id: "ztunnel~10.0.0.1~ztunnel.istio-system~istio-system.svc.cluster.local", Metadata: meta}
	return z.send(&discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: addressType})
}

func (z *ztunnel) send(request *discovery.DeltaDiscoveryRequest) error {
	body, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	frame := append([]byte{0}, binary.BigEndian.AppendUint32(nil, uint32(len(body)))...)
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.framer.WriteData(1, false, append(frame, body...))
}

// run reads until the connection ends.
func (z *ztunnel) run() error {
	for {
		frame, err := z.framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.DataFrame:
			if err := z.data(f.Data(), int(f.Length)); err != nil {
				return err
			}
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = z.write(z.framer.WriteSettingsAck)
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				data := f.Data
				err = z.write(func() error { return z.framer.WritePing(true, data) })
			}
		case *http2.GoAwayFrame:
			err = fmt.Errorf("the server ends the connection: %v", f.ErrCode)
		case *http2.RSTStreamFrame:
			err = fmt.Errorf("the server ends the stream: %v", f.ErrCode)
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				err = errors.New("the server ends the stream")
			}
		}
		if err != nil {
			return err
		}
	}
}

func (z *ztunnel) write(frame func() error) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	return frame()
}

// data takes the payload of one frame, which any number of messages may share.
func (z *ztunnel) data(b []byte, length int) error {
	if z.consumed += length; z.consumed >= streamWindow/4 {
		grant := uint32(z.consumed)
		z.consumed = 0
		if err := z.write(func() error {
			return errors.Join(z.framer.WriteWindowUpdate(0, grant), z.framer.WriteWindowUpdate(1, grant))
		}); err != nil {
			return err
		}
	}
	for len(b) > 0 {
		if z.left == 0 {
			n := min(5-len(z.prefix), len(b))
			z.prefix = append(z.prefix, b[:n]...)
			b = b[n:]
			if len(z.prefix) < 5 {
				return nil
			}
			z.size = int(binary.BigEndian.Uint32(z.prefix[1:]))
			z.left, z.prefix, z.message = z.size, z.prefix[:0], z.message[:0]
			continue
		}
		n := min(z.left, len(b))
		if z.size <= whole || z.left-n < tail {
			z.message = append(z.message, b[:n]...)
		}
		z.left -= n
		b = b[n:]
		if z.left == 0 {
			if err := z.complete(); err != nil {
				return err
			}
		}
	}
	return nil
}

// complete acknowledges a response and passes it on.
func (z *ztunnel) complete() error {
	nonce, err := nonceOf(z.message)
	if err != nil {
		return err
	}
	z.handle(z.message, z.size)
	return z.send(&discovery.DeltaDiscoveryRequest{TypeUrl: addressType, ResponseNonce: nonce})
}

// nonceOf finds the nonce at the end of a response: field 5, behind the type URL, which resources have too.
func nonceOf(message []byte) (string, error) {
	const tag = 5<<3 | 2
	at := bytes.LastIndex(message, []byte(addressType))
	if at < 0 {
		return "", errors.New("a response without a type")
	}
	rest := message[at+len(addressType):]
	if len(rest) < 2 || rest[0] != tag || len(rest) < 2+int(rest[1]) || rest[1] > 127 {
		return "", errors.New("a response without a nonce behind its type")
	}
	return string(rest[2 : 2+int(rest[1])]), nil
}
