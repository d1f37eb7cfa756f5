package proxy

import (
	"encoding/binary"
	"strconv"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// grpcCounter counts the messages of a gRPC body as it passes: each is preceded by a flag and a length of four bytes.
type grpcCounter struct {
	messages uint64
	left     uint64 // of the message
	prefix   [5]byte
	have     int // bytes of the prefix
}

func (c *grpcCounter) add(p []byte) {
	for len(p) > 0 {
		if c.left > 0 {
			n := min(c.left, uint64(len(p)))
			c.left -= n
			p = p[n:]
			continue
		}
		n := copy(c.prefix[c.have:], p)
		c.have += n
		p = p[n:]
		if c.have == len(c.prefix) {
			c.messages++
			c.left = uint64(binary.BigEndian.Uint32(c.prefix[1:]))
			c.have = 0
		}
	}
}

// grpcStatus is the outcome of a gRPC request: of the trailers, or of the head when there is nothing else; -1 when it is missing.
func grpcStatus(head, trailer *httpmsg.Header) int {
	for _, h := range []*httpmsg.Header{trailer, head} {
		if h == nil {
			continue
		}
		if v, ok := h.Get("grpc-status"); ok {
			if n, err := strconv.Atoi(v); err == nil && n >= 0 {
				return n
			}
		}
	}
	return -1
}
