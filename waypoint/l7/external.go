package l7

import (
	"slices"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/extauthz"
)

// asked is where the decision goes on after an authorizer has answered.
type asked struct {
	routes *Routes
	next   int // filter
}

// external stops the decision at an authorizer that has to be asked. Who only explains goes on as if it had said yes.
func (d *Decision) external(f *filter, r *Request) {
	if !f.external.Enabled(&r.Info) {
		return
	}
	if d.trace != nil {
		*d.trace = append(*d.trace, Step{Filter: f.name, Asks: f.external.Cluster})
		return
	}
	d.Ask = f.external
}

// Resume goes on deciding with what the authorizer of d.Ask has said. There may be another one then.
func (c *Config) Resume(d *Decision, r *Request, v extauthz.Verdict, rnd Rand) {
	f, at := d.Ask, d.asked
	d.Ask, d.asked = nil, asked{}
	if no := f.Settle(&r.Info, &v); no != nil {
		reply := &Reply{Status: no.Status, Body: no.Body, Own: no.Header, GRPCStatus: -1, Details: no.Details, Flags: FlagUnauthorized}
		if v.Outcome == extauthz.TooLarge {
			reply.Flags = 0
		}
		d.answer(reply)
		return
	}
	if v.Changed() {
		d.resp.verdicts = append(d.resp.verdicts, v)
	}
	if r.ClearRoute && at.routes != nil {
		r.ClearRoute = false
		d.selectRoute(at.routes, r)
	}
	c.proceed(d, at.routes, r, rnd, at.next)
}

// asks is whether a filter asks an authorizer.
func (h *HTTPManager) asks() bool {
	return slices.ContainsFunc(h.filters, func(f filter) bool { return f.external != nil })
}
