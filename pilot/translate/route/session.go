package route

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	cookiev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	typehttpv3 "github.com/envoyproxy/go-control-plane/envoy/type/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// SessionFilter is the name of the filter that keeps sessions where routes say so.
const SessionFilter = "envoy.filters.http.stateful_session"

// envoy is what a route, or one of its targets, says to the filter. Another host is chosen where that of the session is gone.
func (s *Session) envoy() *sessionv3.StatefulSessionPerRoute {
	state := func(name string, m proto.Message) *sessionv3.StatefulSessionPerRoute {
		return &sessionv3.StatefulSessionPerRoute{Override: &sessionv3.StatefulSessionPerRoute_StatefulSession{StatefulSession: &sessionv3.StatefulSession{
			SessionState: &corev3.TypedExtensionConfig{Name: name, TypedConfig: mustAny(m)},
		}}}
	}
	if s.Header != "" {
		return state("envoy.http.stateful_session.header", &headerv3.HeaderBasedSessionState{Name: s.Header})
	}
	cookie := &typehttpv3.Cookie{Name: s.Cookie.Name, Path: s.Cookie.Path}
	if s.Cookie.TTL > 0 {
		cookie.Ttl = durationpb.New(s.Cookie.TTL.Truncate(time.Second))
	}
	return state("envoy.http.stateful_session.cookie", &cookiev3.CookieBasedSessionState{Cookie: cookie})
}

// session is the one of the whole route: its own, or that of the only target.
func (f *Forward) session() *Session {
	if f == nil {
		return nil
	}
	if f.Session != nil {
		return f.Session
	}
	if targets := weighted(f.Targets); len(targets) == 1 {
		return targets[0].Session
	}
	return nil
}
