package l7

import (
	"strconv"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// ApplyResponse changes the head of a response of upstream as Envoy would before sending it downstream.
func (d *Decision) ApplyResponse(r *Request, head *httpmsg.Head, info *ResponseInfo) {
	r.Response = head
	if info.Host != nil {
		r.Upstream = info.Host.HostPort(r)
	}
	h := &head.Header
	if !d.manager.opts.suppressEnvoy && head.Status != 101 { // an upgrade has no end
		ms := max(0, info.ServiceTime.Milliseconds())
		h.Set("x-envoy-upstream-service-time", r.Scratch.Keep(strconv.AppendInt(r.Scratch.Bytes(), ms, 10)))
	}
	d.attempts(r, h, info)
	d.responseHeaders(r, h)
	d.finishResponse(r, h, info)
}

// HostPort is the address as Envoy prints it.
func (e *Endpoint) HostPort(r *Request) string {
	switch {
	case e.Address.IsValid():
		return r.Scratch.Keep(e.Address.AppendTo(r.Scratch.Bytes()))
	case e.Host != "":
		return r.Scratch.Keep(strconv.AppendUint(append(append(r.Scratch.Bytes(), e.Host...), ':'), uint64(e.Port), 10))
	}
	return r.Conn.Destination.String()
}

func (d *Decision) attempts(r *Request, h *httpmsg.Header, info *ResponseInfo) {
	if d.AttemptCountResponse && info.Attempts > 0 {
		h.Set("x-envoy-attempt-count", r.Scratch.Keep(strconv.AppendUint(r.Scratch.Bytes(), uint64(info.Attempts), 10)))
	}
}

// responseHeaders makes the header operations of the route, and sets a cookie that its hash policy made.
func (d *Decision) responseHeaders(r *Request, h *httpmsg.Header) {
	rt := d.Route
	if rt == nil {
		return
	}
	if d.weighted != nil {
		d.weighted.response.Apply(h, &r.Info)
	}
	for _, ops := range rt.response {
		ops.Apply(h, &r.Info)
	}
	if d.resp.cookie != nil {
		h.Add("set-cookie", d.resp.cookie.setCookie(r, d.resp.cookieValue))
	}
}

// finishResponse is what the connection manager does to every response.
func (d *Decision) finishResponse(r *Request, h *httpmsg.Header, info *ResponseInfo) {
	if d.resp.session != nil && info.HostAddress != "" && info.HostAddress != d.Session.Address {
		d.resp.session.tell(h, info)
	}
	if d.resp.cors != nil {
		d.resp.cors.respond(h, d.resp.origin)
	}
	d.decorate(h)
	for n := range d.resp.verdicts {
		d.resp.verdicts[n].Respond(h)
	}
	for _, s := range d.resp.shown {
		tellLimit(r, h, s, info.Now)
	}
	o := &d.manager.opts
	if _, ok := h.Get("date"); !ok {
		h.Add("date", r.Scratch.Keep(info.Now.UTC().AppendFormat(r.Scratch.Bytes(), "Mon, 02 Jan 2006 15:04:05 GMT")))
	}
	switch o.server {
	case hcmv3.HttpConnectionManager_OVERWRITE:
		h.Set("server", d.manager.ServerName)
	case hcmv3.HttpConnectionManager_APPEND_IF_ABSENT:
		if _, ok := h.Get("server"); !ok {
			h.Add("server", d.manager.ServerName)
		}
	}
	if r.ID != "" && (o.idInResponse || r.Head.Header.Value("x-envoy-force-trace") != "") {
		h.Set("x-request-id", r.ID)
	}
	if o.via != "" {
		if v, ok := h.Joined("via"); ok {
			h.Set("via", r.Scratch.Concat(v, ", ", o.via))
		} else {
			h.Set("via", o.via)
		}
	}
}

// LocalReply makes the head of an answer of ours, everything that ApplyResponse would do included, and returns the body: a request
// of gRPC gets trailers only. HEAD gets the length and no body, and so do the statuses that have none.
func (d *Decision) LocalReply(r *Request, reply *Reply, info *ResponseInfo, head *httpmsg.Head) (body string) {
	version := head.Version
	head.Reset()
	head.Version = version
	r.Response = head
	h := &head.Header
	body = reply.Body
	switch {
	case r.GRPC && !reply.bare:
		head.Status, head.ContentLength = 200, 0
		h.Add("content-type", "application/grpc")
		status := reply.GRPCStatus
		if status < 0 {
			status = grpcOfHTTP(reply.Status)
		}
		h.Add("grpc-status", strconv.Itoa(status))
		if body != "" {
			h.Add("grpc-message", percentEncode(body))
		}
		body = ""
	default:
		head.Status, head.ContentLength = reply.Status, int64(len(body))
		if body != "" {
			h.Add("content-type", "text/plain")
		}
	}
	for _, f := range reply.Header {
		h.Set(f.Key, f.Value)
	}
	for _, f := range reply.Own {
		h.Del(f.Key)
	}
	for _, f := range reply.Own {
		h.Add(f.Key, f.Value)
	}
	if d.resp.limited != nil && reply == d.Reply {
		d.limitReply(r, h)
	}
	if d.resp.location != "" && reply == d.Reply {
		h.Set("location", d.resp.location)
	}
	d.attempts(r, h, info)
	if d.Route != nil && !reply.bare && (reply.direct || d.Route.forward != nil) {
		d.responseHeaders(r, h)
		if r.GRPC {
			h.Set("content-type", "application/grpc")
		}
	}
	d.finishResponse(r, h, info)
	if d.resp.head || head.Status == 204 || head.Status == 304 {
		body = ""
	}
	return body
}

// percentEncode is the encoding of grpc-message: printable ASCII but % stays.
func percentEncode(s string) string {
	plain := true
	for i := range len(s) {
		plain = plain && s[i] >= ' ' && s[i] < 0x7f && s[i] != '%'
	}
	if plain {
		return s
	}
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+8)
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c < 0x7f && c != '%' {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(b)
}

// grpcOfHTTP maps an HTTP status as gRPC's specification does.
func grpcOfHTTP(status int) int {
	switch status {
	case 400:
		return 13
	case 401:
		return 16
	case 403:
		return 7
	case 404:
		return 12
	case 429, 502, 503, 504:
		return 14
	}
	return 2
}
