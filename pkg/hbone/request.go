package hbone

import (
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// Field is one header field; Key is lower-case.
type Field struct{ Key, Value string }

// Header is an ordered list of header fields without pseudo-headers.
type Header []Field

// Get returns the first value of key (lower-case), or "".
func (h Header) Get(key string) string {
	for i := range h {
		if h[i].Key == key {
			return h[i].Value
		}
	}
	return ""
}

// Add appends a field; the key is lower-cased. An empty value is not added.
func (h *Header) Add(key, value string) {
	if value != "" {
		*h = append(*h, Field{strings.ToLower(key), value})
	}
}

// Request is one CONNECT.
type Request struct {
	Authority string // as on the wire; see [ParseAuthority]
	Header    Header
	// Early are the first bytes of the tunnel, which a client sends together with the CONNECT, instead of a round trip later.
	// The peer holds them back until it accepts. See [EarlySize].
	Early []byte
	// Lent says that Early is a buffer of [netx.Pool] that a client gives back, and sets Early to nil, once the peer has accepted: until
	// then it may be needed for another attempt, and from then on whoever waits in Connect for App would keep it for nothing.
	Lent bool
	// Patience is how long a Pool's Connect waits for a connection to be made; 0 is until its context ends. The dial goes on for others.
	Patience time.Duration

	// App, if set, gets what the peer sends from the moment it accepts, and Received counts that. Then a client's Connect returns
	// when the peer has answered and App has more to send, or either end has come to its end, or after some seconds: the usual tunnel,
	// whose application waits for an answer, is opened without waking anybody up for it. The stream must be forwarded to App and nowhere else.
	App      *net.TCPConn
	Received *netx.Counter
}

// giveBack returns a lent buffer.
func (r *Request) giveBack() {
	if r.Lent && r.Early != nil {
		netx.Pool.Put(r.Early)
		r.Early = nil
	}
}

// EarlySize is how many early bytes are worth a copy.
const EarlySize = 4 << 10

// Response is the peer's answer to a CONNECT.
type Response struct {
	Status int
	Header Header
}

// StatusError is returned by Connect when the peer answered with another status than 200.
type StatusError struct {
	Response
}

// Error implements error.
func (e *StatusError) Error() string {
	return fmt.Sprintf("peer refused CONNECT with status %d", e.Status)
}
