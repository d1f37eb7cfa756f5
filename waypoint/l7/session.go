package l7

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	cookiev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// session keeps the requests of a client at the host that answered the first one: the response names the host in a cookie or a header,
// which the client sends back. The zero value does nothing.
type session struct {
	header string
	cookie sessionCookie
	strict bool
	status int
}

// sessionCookie is the cookie of a session; there is none without a name.
type sessionCookie struct {
	name, path, attributes string
	// ttl is in whole seconds; 0 lasts as long as the browser does.
	ttl time.Duration
}

// SessionHost is the host that a request asks for.
type SessionHost struct {
	// Address as access logs have it; empty when the request asks for none.
	Address string
	// Strict is that no other host will do: while that one is not known the answer is Status, and 503 while it is not healthy.
	Strict bool
	Status int
}

func compileSession(p *sessionv3.StatefulSession) (*session, error) {
	s := &session{strict: p.GetStrict(), status: 503}
	if n := p.GetStatusOnStrictDestinationNotFound(); n != 0 && s.strict {
		if n < 200 || n > 599 {
			return nil, strict.Errorf("status_on_strict_destination_not_found", "%d is no status of an answer", n)
		}
		s.status = int(n)
	}
	if p.GetSessionState() == nil {
		return s, nil
	}
	err := s.state(p.GetSessionState())
	return s, strict.At(err, "session_state.typed_config")
}

func (s *session) state(p *corev3.TypedExtensionConfig) error {
	m, err := strict.Unpack(p.GetTypedConfig())
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *cookiev3.CookieBasedSessionState:
		c := m.GetCookie()
		if c.GetName() == "" {
			return strict.Errorf("cookie.name", "is required")
		}
		s.cookie = sessionCookie{name: c.GetName(), path: c.GetPath(), ttl: duration(c.GetTtl(), 0).Truncate(time.Second)}
		for _, a := range c.GetAttributes() {
			s.cookie.attributes += "; " + a.GetName()
			if a.GetValue() != "" {
				s.cookie.attributes += "=" + a.GetValue()
			}
		}
	case *headerv3.HeaderBasedSessionState:
		if s.header = strings.ToLower(m.GetName()); s.header == "" {
			return strict.Errorf("name", "is required")
		}
	default:
		return strict.Errorf("", "type %s is not supported here", m.ProtoReflect().Descriptor().FullName())
	}
	return nil
}

// keepSession notes which host the request asks for, and that the response is to name the one that it got.
func (d *Decision) keepSession(s *session, r *Request) {
	address := ""
	switch {
	case s.header != "":
		if v, ok := exchange.Header(r.Head, s.header); ok {
			address = decodeHost(v)
		}
	case s.cookie.name != "" && s.cookie.covers(r.Head.Path):
		if v := cookie(r, s.cookie.name); v != "" {
			address = parseSessionCookie(v, r.Now)
		}
	default:
		return
	}
	d.resp.session = s
	if address != "" {
		d.Session = SessionHost{Address: address, Strict: s.strict, Status: s.status}
	}
}

// SessionBy says by what the requests of a client stay with one host: "cookie sid", "header x-session"; empty when nothing does.
func (d *Decision) SessionBy() string {
	switch s := d.resp.session; {
	case s == nil:
		return ""
	case s.header != "":
		return "header " + s.header
	default:
		return "cookie " + s.cookie.name
	}
}

// covers is whether a client that has got the cookie sends it along for the path (RFC 6265, section 5.1.4).
func (c *sessionCookie) covers(path string) bool {
	if c.path == "" || c.path == "/" {
		return true
	}
	rest, ok := strings.CutPrefix(path, c.path)
	return ok && (strings.HasSuffix(c.path, "/") || rest == "" || strings.IndexByte("/?#", rest[0]) >= 0)
}

// tell names the host in the response.
func (s *session) tell(h *httpmsg.Header, info *ResponseInfo) {
	if s.header != "" {
		h.Set(s.header, base64.StdEncoding.EncodeToString([]byte(info.HostAddress)))
		return
	}
	h.Add("set-cookie", s.cookie.set(sessionCookieValue(info.HostAddress, s.cookie.ttl, info.Now)))
}

// set is the value of set-cookie.
func (c *sessionCookie) set(value string) string {
	var b strings.Builder
	b.WriteString(c.name + `="` + value + `"`)
	if c.ttl > 0 {
		b.WriteString("; Max-Age=" + strconv.FormatInt(int64(c.ttl/time.Second), 10))
	}
	if c.path != "" {
		b.WriteString("; Path=" + c.path)
	}
	b.WriteString(c.attributes + "; HttpOnly")
	return b.String()
}

// Fields of the message in a cookie, as Envoy has it: the address, and when that is no longer to be heeded. Envoy counts that in seconds
// of its machine's own clock, we in seconds since 1970, as several proxies read the cookie.
const (
	sessionAddress = 1
	sessionExpires = 2
)

// sessionCookieValue is the value of a session's cookie.
func sessionCookieValue(address string, ttl time.Duration, now time.Time) string {
	b := protowire.AppendTag(nil, sessionAddress, protowire.BytesType)
	b = protowire.AppendString(b, address)
	if ttl > 0 {
		b = protowire.AppendTag(b, sessionExpires, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(max(0, now.Add(ttl).Unix()))) //nolint:gosec // not negative
	}
	return base64.StdEncoding.EncodeToString(b)
}

// parseSessionCookie is the address in the value of a session's cookie; empty when there is none that is to be heeded. What is no message
// is the address itself, as older Envoys wrote it.
func parseSessionCookie(value string, now time.Time) string {
	address, expires, ok := parseSessionMessage([]byte(decodeHost(value)))
	switch {
	case !ok:
		return decodeHost(value)
	case expires != 0 && now.Unix() > 0 && uint64(now.Unix()) > expires:
		return ""
	}
	return address
}

// decodeHost is empty for what is no base64.
func decodeHost(value string) string {
	b, err := base64.StdEncoding.Strict().DecodeString(value)
	if err != nil {
		return ""
	}
	return string(b)
}

// parseSessionMessage reads the message as any reader of protobuf does: of a field that comes twice the last one counts, and others are
// passed over.
func parseSessionMessage(b []byte) (address string, expires uint64, ok bool) {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return "", 0, false
		}
		b = b[n:]
		switch {
		case number == sessionAddress && kind == protowire.BytesType:
			var v []byte
			if v, n = protowire.ConsumeBytes(b); n < 0 || !utf8.Valid(v) {
				return "", 0, false
			}
			address = string(v)
		case number == sessionExpires && kind == protowire.VarintType:
			if expires, n = protowire.ConsumeVarint(b); n < 0 {
				return "", 0, false
			}
		default:
			if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
				return "", 0, false
			}
		}
		b = b[n:]
	}
	return address, expires, true
}
