package tracing

import (
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

// A request id of Envoy's form tells at this place why the request is traced.
const (
	idLength = 36
	reasonAt = 14

	reasonNone    = '4' // the version of the UUID
	reasonSampled = '9'
	reasonForced  = 'a'
	reasonClient  = 'b'
)

// decide is whether a request is traced as far as its id, its client and chance say.
func (c *Config) decide(r *exchange.Info, rnd Random) bool {
	if !c.byID {
		return true
	}
	number, ok := leading(r.ID)
	if !ok {
		return false
	}
	result := number % wholly
	h := &r.Head.Header
	reason := byte(reasonNone)
	if len(r.ID) == idLength {
		switch r.ID[reasonAt] {
		case reasonSampled, reasonForced, reasonClient:
			reason = r.ID[reasonAt]
		}
	}
	if reason == reasonNone {
		_, client := h.Get("x-client-trace-id")
		_, forced := h.Get("x-envoy-force-trace")
		switch {
		case client && rnd.Uint64()%wholly < c.client:
			reason = reasonClient
		case forced:
			reason = reasonForced
		case result < c.random:
			reason = reasonSampled
		}
		if reason != reasonNone {
			c.note(r, reason)
		}
	}
	if reason != reasonNone && result >= c.overall {
		reason = reasonNone
		c.note(r, reason)
	}
	return reason != reasonNone
}

// note writes the reason into the request id.
func (c *Config) note(r *exchange.Info, reason byte) {
	if !c.pack || len(r.ID) != idLength || r.ID[reasonAt] == reason {
		return
	}
	b := append(r.Scratch.Bytes(), r.ID...)
	b[reasonAt] = reason
	r.ID = r.Scratch.Keep(b)
	r.Head.Header.Set("x-request-id", r.ID)
}

// leading is the number that the first eight digits of an id are.
func leading(id string) (n uint64, ok bool) {
	if len(id) < 8 {
		return 0, false
	}
	for i := range 8 {
		d := nibble(id[i])
		if d > 15 {
			return 0, false
		}
		n = n<<4 | uint64(d)
	}
	return n, true
}
