package spans

import (
	"encoding/hex"
	"net"
	"strconv"
	"unicode/utf8"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/accesslog"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/export"
)

// Values of OTLP.
const (
	kindServer  = 2
	kindClient  = 3
	statusError = 2
)

// client is whether the span is one of a client: what the proxy serves leaves.
func (v *view) client() bool { return v.span.Config.Egress }

// appendOTLP appends the span as one element of ScopeSpans.spans.
func (v *view) appendOTLP(dst []byte) []byte {
	s, r := v.span, v.r
	b := make([]byte, 0, 1024)
	b = export.AppendBytes(b, 1, s.Trace[:])
	b = export.AppendBytes(b, 2, s.ID[:])
	if s.State != "" {
		b = export.AppendBytes(b, 3, s.State)
	}
	if s.HasParent {
		b = export.AppendBytes(b, 4, s.Parent[:])
	}
	b = export.AppendBytes(b, 5, valid(s.Name))
	kind := uint64(kindServer)
	if v.client() {
		kind = kindClient
	}
	b = export.AppendVarint(b, 6, kind)
	start := r.Start.UnixNano()
	b = export.AppendFixed64(b, 7, uint64(start))                          //nolint:gosec // after 1970
	b = export.AppendFixed64(b, 8, uint64(start+r.Duration.Nanoseconds())) //nolint:gosec // as above
	v.each(func(key, value string) { b = export.AppendAttribute(b, 9, key, valid(value)) })
	if r.Status == 0 || r.Status >= 500 || kind == kindClient && r.Status >= 400 {
		b = export.AppendBytes(b, 15, export.AppendVarint(nil, 3, statusError))
	}
	return export.AppendBytes(dst, 2, b)
}

// valid is a text that may be in a message: clients send what they like.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

// appendZipkin appends the span as Zipkin's API version 2 has it.
func (v *view) appendZipkin(dst []byte) []byte {
	s, r := v.span, v.r
	dst = append(dst, `{"traceId":"`...)
	dst = s.AppendTrace(dst)
	dst = append(dst, `","id":"`...)
	dst = s.AppendID(dst)
	if s.HasParent {
		dst = append(dst, `","parentId":"`...)
		dst = append(dst, hex.EncodeToString(s.Parent[:])...)
	}
	dst = append(dst, `","name":`...)
	dst = accesslog.AppendQuoted(dst, s.Name)
	kind := "SERVER"
	if v.client() {
		kind = "CLIENT"
	}
	dst = append(append(append(dst, `,"kind":"`...), kind...), `","timestamp":`...)
	dst = strconv.AppendInt(dst, r.Start.UnixMicro(), 10)
	dst = append(dst, `,"duration":`...)
	dst = strconv.AppendInt(dst, max(r.Duration.Microseconds(), 1), 10)
	if s.Shared {
		dst = append(dst, `,"shared":true`...)
	}
	dst = append(dst, `,"localEndpoint":{"serviceName":`...)
	service := s.Config.Provider.ServiceName
	if service == "" {
		service = v.config.Service
	}
	dst = accesslog.AppendQuoted(dst, service)
	if ip := net.ParseIP(v.config.Address); ip != nil {
		family := "ipv4"
		if ip.To4() == nil {
			family = "ipv6"
		}
		dst = append(append(append(dst, `,"`...), family...), `":"`...)
		dst = append(append(dst, v.config.Address...), `","port":0`...)
	}
	dst = append(dst, `},"tags":{`...)
	first := true
	v.each(func(key, value string) {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(accesslog.AppendQuoted(dst, key), ':')
		dst = accesslog.AppendQuoted(dst, value)
	})
	return append(dst, "}}"...)
}
