package api

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// Kind of a frame.
type Kind byte

// The frames of a command: its streams, the end of its input, and how it ended.
const (
	Stdin Kind = iota
	Stdout
	Stderr
	StdinEnd
	Ended
)

// maxFrame bounds a frame, in bytes.
const maxFrame = 1 << 20

// WriteFrame writes one frame: kind, length in four bytes, payload.
func WriteFrame(w io.Writer, kind Kind, payload []byte) error {
	frame := make([]byte, 5, 5+len(payload))
	frame[0] = byte(kind)
	binary.BigEndian.PutUint32(frame[1:], uint32(len(payload)))
	_, err := w.Write(append(frame, payload...))
	return err
}

// ReadFrame reads one frame.
func ReadFrame(r io.Reader) (Kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes is longer than %d", n, maxFrame)
	}
	payload := make([]byte, n)
	_, err := io.ReadFull(r, payload)
	return Kind(head[0]), payload, err
}

// Frames writes the frames of several streams to one connection. Safe for concurrent use.
type Frames struct {
	mu sync.Mutex // one frame at a time
	w  io.Writer
}

// NewFrames writes to w.
func NewFrames(w io.Writer) *Frames { return &Frames{w: w} }

// Write writes one frame.
func (f *Frames) Write(kind Kind, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return WriteFrame(f.w, kind, payload)
}

// Stream is a writer of one kind.
func (f *Frames) Stream(kind Kind) io.Writer { return stream{f, kind} }

type stream struct {
	frames *Frames
	kind   Kind
}

// Write implements io.Writer.
func (s stream) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), maxFrame)
		if err := s.frames.Write(s.kind, p[:n]); err != nil {
			return written, err
		}
		written += n
		p = p[n:]
	}
	return written, nil
}
