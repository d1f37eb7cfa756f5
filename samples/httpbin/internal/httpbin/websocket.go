package httpbin

import (
	"bufio"
	"crypto/sha1" //nolint:gosec // the handshake of RFC 6455 asks for it; nothing depends on its strength
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Frame types of RFC 6455, section 5.2.
const (
	opContinuation = 0x0
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

// websocketIdle is how long a client may be silent.
const websocketIdle = 5 * time.Minute

var errFrame = errors.New("frame breaks RFC 6455")

// websocketEcho sends every message back, until the client closes.
func websocketEcho(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Sec-WebSocket-Key")
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || key == "" || r.Header.Get("Sec-WebSocket-Version") != "13" {
		w.Header().Set("Sec-WebSocket-Version", "13")
		refuse(w, errors.New("want a WebSocket handshake, version 13"))
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, fmt.Errorf("this connection cannot become a WebSocket: %w", err))
		return
	}
	defer conn.Close()
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // see import
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	if rw.Flush() != nil {
		return
	}
	for {
		if conn.SetDeadline(time.Now().Add(websocketIdle)) != nil {
			return
		}
		done, err := echoFrame(rw)
		if errors.Is(err, errFrame) {
			_ = writeFrame(rw.Writer, 0x80|opClose, []byte{0x03, 0xea}) // 1002: protocol error
		}
		if done || err != nil {
			return
		}
	}
}

// echoFrame answers one frame. Fragments go back as fragments, so a message
// needs no memory beyond one frame. done is set by a close frame.
func echoFrame(rw *bufio.ReadWriter) (done bool, err error) {
	head, payload, err := readFrame(rw.Reader)
	if err != nil {
		return false, err
	}
	switch op := head & 0x0f; op {
	case opClose:
		return true, writeFrame(rw.Writer, 0x80|opClose, payload)
	case opPing:
		return false, writeFrame(rw.Writer, 0x80|opPong, payload)
	case opPong:
		return false, nil
	case opContinuation, 1, 2:
		return false, writeFrame(rw.Writer, head, payload)
	default:
		return false, errFrame
	}
}

// readFrame returns a frame's first byte and its unmasked payload.
func readFrame(r *bufio.Reader) (head byte, payload []byte, err error) {
	var h [2]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	size := uint64(h[1] & 0x7f)
	switch size {
	case 126:
		var n [2]byte
		_, err = io.ReadFull(r, n[:])
		size = uint64(binary.BigEndian.Uint16(n[:]))
	case 127:
		var n [8]byte
		_, err = io.ReadFull(r, n[:])
		size = binary.BigEndian.Uint64(n[:])
	}
	if err != nil {
		return 0, nil, err
	}
	control := h[0]&0x08 != 0
	// Clients must mask, extensions were not agreed on, control frames are short and whole.
	if h[1]&0x80 == 0 || h[0]&0x70 != 0 || size > maxBody || control && (size > 125 || h[0]&0x80 == 0) {
		return 0, nil, errFrame
	}
	var mask [4]byte
	if _, err := io.ReadFull(r, mask[:]); err != nil {
		return 0, nil, err
	}
	payload = make([]byte, size)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, err
	}
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return h[0], payload, nil
}

// writeFrame sends one frame, unmasked, as servers do.
func writeFrame(w *bufio.Writer, head byte, payload []byte) error {
	h := []byte{head}
	switch n := len(payload); {
	case n < 126:
		h = append(h, byte(n))
	case n < 1<<16:
		h = binary.BigEndian.AppendUint16(append(h, 126), uint16(n))
	default:
		h = binary.BigEndian.AppendUint64(append(h, 127), uint64(n))
	}
	// bufio.Writer keeps its first error, Flush reports it.
	_, _ = w.Write(h)
	_, _ = w.Write(payload)
	return w.Flush()
}
