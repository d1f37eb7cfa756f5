package h2

import "encoding/binary"

// FrameType is the type octet of a frame.
type FrameType uint8

// The frame types of RFC 9113 section 6. Others are ignored by readers.
const (
	FrameData         FrameType = 0x0
	FrameHeaders      FrameType = 0x1
	FramePriority     FrameType = 0x2
	FrameRSTStream    FrameType = 0x3
	FrameSettings     FrameType = 0x4
	FramePushPromise  FrameType = 0x5
	FramePing         FrameType = 0x6
	FrameGoAway       FrameType = 0x7
	FrameWindowUpdate FrameType = 0x8
	FrameContinuation FrameType = 0x9
)

// Flags is the flags octet; its meaning depends on the frame type.
type Flags uint8

// Frame flags.
const (
	FlagEndStream  Flags = 0x1 // DATA, HEADERS
	FlagAck        Flags = 0x1 // SETTINGS, PING
	FlagEndHeaders Flags = 0x4
	FlagPadded     Flags = 0x8
	FlagPriority   Flags = 0x20
)

// Has reports whether all bits of v are set.
func (f Flags) Has(v Flags) bool { return f&v == v }

// FrameHeaderLen is the size of every frame header.
const FrameHeaderLen = 9

// MinMaxFrameSize and MaxMaxFrameSize bound SETTINGS_MAX_FRAME_SIZE.
const (
	MinMaxFrameSize = 1 << 14
	MaxMaxFrameSize = 1<<24 - 1
)

// Preface is what a client sends first.
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// FrameHeader is the fixed part of a frame.
type FrameHeader struct {
	Length   uint32 // of the payload
	Type     FrameType
	Flags    Flags
	StreamID uint32 // 31 bits
}

// ParseFrameHeader reads the first FrameHeaderLen bytes of b; the reserved bit is ignored.
func ParseFrameHeader(b []byte) FrameHeader {
	_ = b[FrameHeaderLen-1]
	return FrameHeader{
		Length:   uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]),
		Type:     FrameType(b[3]),
		Flags:    Flags(b[4]),
		StreamID: binary.BigEndian.Uint32(b[5:]) & (1<<31 - 1),
	}
}

// Put writes h into the first FrameHeaderLen bytes of b.
func (h FrameHeader) Put(b []byte) {
	_ = b[FrameHeaderLen-1]
	b[0], b[1], b[2] = byte(h.Length>>16), byte(h.Length>>8), byte(h.Length)
	b[3], b[4] = byte(h.Type), byte(h.Flags)
	binary.BigEndian.PutUint32(b[5:], h.StreamID)
}

// Append appends h to dst.
func (h FrameHeader) Append(dst []byte) []byte {
	dst = append(dst, byte(h.Length>>16), byte(h.Length>>8), byte(h.Length), byte(h.Type), byte(h.Flags))
	return binary.BigEndian.AppendUint32(dst, h.StreamID)
}

// check applies the rules of RFC 9113 section 6 that need nothing but the header.
func (h FrameHeader) check(maxFrame uint32) error {
	if h.Length > maxFrame {
		// Section 4.2 allows a stream error for some frames; a connection error is always allowed
		// and a peer that ignores our limit is not worth keeping.
		return ConnError{FrameSizeError, "frame larger than SETTINGS_MAX_FRAME_SIZE"}
	}
	switch h.Type {
	case FrameData, FrameHeaders, FramePriority, FrameRSTStream, FrameContinuation:
		if h.StreamID == 0 {
			return ConnError{ProtocolError, "stream frame on stream 0"}
		}
	case FrameSettings, FramePing, FrameGoAway:
		if h.StreamID != 0 {
			return ConnError{ProtocolError, "connection frame on a stream"}
		}
	}
	return h.checkLength()
}

func (h FrameHeader) checkLength() error {
	bad := false
	switch h.Type {
	case FramePriority:
		if h.Length != 5 {
			return StreamError{h.StreamID, FrameSizeError, "PRIORITY of wrong size"}
		}
	case FrameRSTStream, FrameWindowUpdate:
		bad = h.Length != 4
	case FrameSettings:
		bad = h.Length%6 != 0 || h.Flags.Has(FlagAck) && h.Length != 0
	case FramePing:
		bad = h.Length != 8
	case FrameGoAway:
		bad = h.Length < 8
	}
	if bad {
		return ConnError{FrameSizeError, "frame of wrong size"}
	}
	return nil
}

// ParsePriority reads the stream that another is said to depend on from the first four bytes of b.
func ParsePriority(b []byte) uint32 { return binary.BigEndian.Uint32(b) & (1<<31 - 1) }

// AppendRSTStream appends a RST_STREAM frame.
func AppendRSTStream(dst []byte, id uint32, code ErrCode) []byte {
	dst = FrameHeader{Length: 4, Type: FrameRSTStream, StreamID: id}.Append(dst)
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

// AppendWindowUpdate appends a WINDOW_UPDATE frame; id 0 is the connection. incr must be 1 … 2³¹−1.
func AppendWindowUpdate(dst []byte, id, incr uint32) []byte {
	dst = FrameHeader{Length: 4, Type: FrameWindowUpdate, StreamID: id}.Append(dst)
	return binary.BigEndian.AppendUint32(dst, incr)
}

// AppendPing appends a PING frame.
func AppendPing(dst []byte, ack bool, data [8]byte) []byte {
	h := FrameHeader{Length: 8, Type: FramePing}
	if ack {
		h.Flags = FlagAck
	}
	return append(h.Append(dst), data[:]...)
}

// AppendGoAway appends a GOAWAY frame.
func AppendGoAway(dst []byte, lastID uint32, code ErrCode, debug string) []byte {
	dst = FrameHeader{Length: uint32(8 + len(debug)), Type: FrameGoAway}.Append(dst)
	dst = binary.BigEndian.AppendUint32(dst, lastID)
	dst = binary.BigEndian.AppendUint32(dst, uint32(code))
	return append(dst, debug...)
}

// AppendHeaders appends block as HEADERS and as many CONTINUATION frames as maxFrame demands.
func AppendHeaders(dst []byte, id uint32, endStream bool, block []byte, maxFrame int) []byte {
	h := FrameHeader{Type: FrameHeaders, StreamID: id}
	if endStream {
		h.Flags = FlagEndStream
	}
	for {
		n := min(len(block), maxFrame)
		h.Length = uint32(n)
		if n == len(block) {
			h.Flags |= FlagEndHeaders
		}
		dst = append(h.Append(dst), block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return dst
		}
		h.Type, h.Flags = FrameContinuation, 0
	}
}
