package l7

import (
	"net/netip"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/normalize"
)

// Replies to requests that no route gets to see.
var (
	replyMissingHost  = &Reply{Status: 400, GRPCStatus: -1, Details: "missing_host_header"}                      //nolint:gochecknoglobals // constants
	replyLowVersion   = &Reply{Status: 426, Body: "Upgrade Required", GRPCStatus: -1, Details: "low_version"}    //nolint:gochecknoglobals // as above
	replyMissingPath  = &Reply{Status: 404, GRPCStatus: -1, Details: "missing_path_rejected"}                    //nolint:gochecknoglobals // as above
	replyAbsolutePath = &Reply{Status: 404, GRPCStatus: -1, Details: "absolute_path_rejected"}                   //nolint:gochecknoglobals // as above
	replyBadPath      = &Reply{Status: 400, GRPCStatus: -1, Details: "path_normalization_failed"}                //nolint:gochecknoglobals // as above
	replyNoUpgrade    = &Reply{Status: 403, GRPCStatus: -1, Details: "upgrade_failed"}                           //nolint:gochecknoglobals // as above
	replyNoRoute      = &Reply{Status: 404, GRPCStatus: -1, Details: "route_not_found", Flags: FlagNoRouteFound} //nolint:gochecknoglobals // as above
	replyRBAC         = Reply{Status: 403, Body: "RBAC: access denied", GRPCStatus: -1}                          //nolint:gochecknoglobals // as above
	replyNoCluster    = Reply{Status: 503, GRPCStatus: -1, Details: "cluster_not_found", Flags: FlagNoCluster}   //nolint:gochecknoglobals // as above
)

// sane refuses what is no request, and normalises host and path.
func (h *HTTPManager) sane(r *Request) *Reply {
	head := r.Head
	o := &h.opts
	if head.Version == httpmsg.HTTP10 && !o.acceptHTTP10 {
		return replyLowVersion
	}
	// An empty Host is one; a request of HTTP/1.1 without any does not get here.
	if head.Authority == "" && head.Version != httpmsg.HTTP11 {
		if head.Version != httpmsg.HTTP10 || o.defaultHost == "" {
			return replyMissingHost
		}
		head.Authority = o.defaultHost
	}
	connect := head.Method == "CONNECT"
	switch {
	case head.Path == "" && !connect:
		return replyMissingPath
	case head.Path != "" && head.Path[0] != '/':
		return replyAbsolutePath
	}
	path, res := normalize.Path(head.Path, o.normalize, &r.Scratch)
	switch res {
	case normalize.Reject:
		return replyBadPath
	case normalize.Redirect:
		return &Reply{
			Status: 307, GRPCStatus: -1, Details: "path_normalization_failed",
			Header: []httpmsg.Field{{Key: "location", Value: path}},
		}
	}
	head.Path = path
	if !connect {
		h.normalizeHost(r)
	}
	return nil
}

func (h *HTTPManager) normalizeHost(r *Request) {
	o := &h.opts
	if o.stripDot {
		host, port := splitPort(r.Head.Authority)
		if strings.HasSuffix(host, ".") && host != "." {
			host = host[:len(host)-1]
			if port == "" {
				r.Head.Authority = host
			} else {
				r.Head.Authority = r.Scratch.Concat(host, ":", port)
			}
		}
	}
	if o.stripPort == stripNone {
		return
	}
	host, port := splitPort(r.Head.Authority)
	if port == "" {
		return
	}
	if o.stripPort == stripAny || port == portText(r.Conn.Destination.Port(), r) {
		r.Head.Authority = host
	}
}

func portText(p uint16, r *Request) string {
	b := netip.AddrPortFrom(netip.IPv4Unspecified(), p).AppendTo(r.Scratch.Bytes())
	s := string(b)
	return s[strings.LastIndexByte(s, ':')+1:]
}

// mutateRequest makes the head what the rest of the mesh may trust: forwarding headers, request id, nothing of Envoy's own from
// outside.
func (h *HTTPManager) mutateRequest(r *Request, internalOnly []string, rnd Rand) {
	o, hdr := &h.opts, &r.Head.Header
	delAll(hdr, hopHeader)
	if v, ok := hdr.Get("referer"); ok && !validReferer(v) {
		hdr.Del("referer")
	}
	sanitizeTE(hdr)
	ssl := "http"
	if r.Conn.TLS {
		ssl = "https"
	}
	final, internal := h.remote(r, ssl)
	if r.Head.Version < httpmsg.HTTP2 || r.Head.Scheme == "" {
		if p := hdr.Value("x-forwarded-proto"); p == "http" || p == "https" {
			r.Head.Scheme = p
		} else {
			r.Head.Scheme = ssl
		}
	}
	if o.scheme != "" {
		r.Head.Scheme = o.scheme
	}
	edge := !internal && o.useRemoteAddress
	r.Internal = internal
	switch {
	case internal:
		hdr.Set("x-envoy-internal", "true")
	case edge:
		delAll(hdr, edgeHeader)
	default:
		delAll(hdr, externalHeader)
	}
	if !internal {
		for _, name := range internalOnly {
			hdr.Del(name)
		}
	}
	if !final.IsValid() {
		final = unmapped(r.Conn.Source)
	}
	r.Remote = final
	if o.via != "" {
		if v, ok := hdr.Joined("via"); ok {
			hdr.Set("via", r.Scratch.Concat(v, ", ", o.via))
		} else {
			hdr.Set("via", o.via)
		}
	}
	if edge && final.IsValid() {
		hdr.Set("x-envoy-external-address", r.Scratch.Keep(final.Addr().AppendTo(r.Scratch.Bytes())))
	}
	if r.ID = hdr.Value("x-request-id"); o.generateID && (r.ID == "" || edge && !o.keepExternalID) {
		r.ID = newID(r, rnd)
		hdr.Set("x-request-id", r.ID)
	}
	o.clientCertificate(r)
}

// remote finds out who the client is, by x-forwarded-for as far as that is trusted, and adds the peer to it.
func (h *HTTPManager) remote(r *Request, ssl string) (final netip.AddrPort, internal bool) {
	o, hdr := &h.opts, &r.Head.Header
	xff, has := hdr.Joined("x-forwarded-for")
	trusted := false // what follows may be internal
	if !o.useRemoteAddress {
		final, trusted = lastForwarded(xff, o.trustedHops)
		if _, ok := hdr.Get("x-forwarded-proto"); !ok {
			hdr.Add("x-forwarded-proto", ssl)
		}
		return final, trusted && final.IsValid() && o.isInternal(final.Addr())
	}
	trusted = !has
	if o.trustedHops > 0 {
		final, _ = lastForwarded(xff, o.trustedHops-1)
	}
	if !final.IsValid() {
		final = unmapped(r.Conn.Source)
	}
	if !o.skipAppend && r.Conn.Source.IsValid() {
		b := r.Scratch.Bytes()
		if has && xff != "" {
			b = append(append(b, xff...), ',')
		}
		hdr.Set("x-forwarded-for", r.Scratch.Keep(r.Conn.Source.Addr().Unmap().AppendTo(b)))
	}
	if _, ok := hdr.Get("x-forwarded-proto"); o.trustedHops == 0 || !ok {
		hdr.Set("x-forwarded-proto", ssl)
	}
	return final, trusted && final.IsValid() && o.isInternal(final.Addr())
}

// unmapped is the address of a peer in the form that policies are written in, on dual-stack sockets too.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func (o *managerOptions) isInternal(a netip.Addr) bool {
	for _, p := range o.internal {
		if p.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}

// lastForwarded is the address of x-forwarded-for before the last skip ones; single is whether it is the only one.
func lastForwarded(xff string, skip uint32) (a netip.AddrPort, single bool) {
	if xff == "" {
		return a, false
	}
	for range skip {
		i := strings.LastIndexByte(xff, ',')
		if i < 0 {
			return a, false
		}
		xff = xff[:i]
	}
	i := strings.LastIndexByte(xff, ',')
	if i >= 0 && i+1 < len(xff) {
		xff = xff[i+1:]
	}
	ip, err := netip.ParseAddr(strings.TrimSpace(xff))
	if err != nil {
		return a, false
	}
	return netip.AddrPortFrom(ip, 0), i < 0 && skip == 0
}

// newID makes a version 4 UUID.
func newID(r *Request, rnd Rand) string {
	const digits = "0123456789abcdef"
	hi, lo := rnd.Uint64()&^0xf000|0x4000, rnd.Uint64()&^(3<<62)|1<<63
	b := r.Scratch.Bytes()
	for i := range 32 {
		switch i {
		case 8, 12, 16, 20:
			b = append(b, '-')
		}
		v := hi
		if i >= 16 {
			v = lo
		}
		b = append(b, digits[v>>(60-4*uint(i&15))&15])
	}
	return r.Scratch.Keep(b)
}

func sanitizeTE(h *httpmsg.Header) {
	v, ok := h.Joined("te")
	if !ok || v == "trailers" {
		return
	}
	for rest := v; rest != ""; {
		var t string
		t, rest, _ = strings.Cut(rest, ",")
		if t, _, _ = strings.Cut(t, ";"); strings.EqualFold(strings.TrimSpace(t), "trailers") {
			h.Set("te", "trailers")
			return
		}
	}
	h.Del("te")
}

// delAll deletes the fields whose keys are so.
func delAll(h *httpmsg.Header, is func(key string) bool) {
	for i := 0; i < h.Len(); {
		if key := h.Fields()[i].Key; is(key) {
			h.Del(key)
		} else {
			i++
		}
	}
}

// hopHeader are never taken from a client.
func hopHeader(key string) bool {
	switch key {
	case "x-envoy-internal", "proxy-connection", "keep-alive":
		return true
	}
	return false
}

// externalHeader steer Envoy: not for a client from outside.
func externalHeader(key string) bool {
	if !strings.HasPrefix(key, "x-envoy-") {
		return false
	}
	switch key {
	case "x-envoy-retriable-status-codes", "x-envoy-retriable-header-names", "x-envoy-retry-on", "x-envoy-retry-grpc-on",
		"x-envoy-max-retries", "x-envoy-upstream-alt-stat-name", "x-envoy-upstream-rq-timeout-ms",
		"x-envoy-upstream-rq-per-try-timeout-ms", "x-envoy-upstream-rq-timeout-alt-response", "x-envoy-expected-rq-timeout-ms",
		"x-envoy-force-trace", "x-envoy-ip-tags", "x-envoy-original-url", "x-envoy-hedge-on-per-try-timeout":
		return true
	}
	return false
}

// edgeHeader are those that only another proxy of the mesh may send.
func edgeHeader(key string) bool {
	switch key {
	case "x-envoy-decorator-operation", "x-envoy-downstream-service-cluster", "x-envoy-downstream-service-node",
		"x-envoy-original-path", "x-envoy-original-host":
		return true
	}
	return externalHeader(key)
}
