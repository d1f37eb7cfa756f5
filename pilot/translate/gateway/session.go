package gateway

import (
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/pilot/translate/route"
)

// serviceSession is what the labels of a service say; nil without any, and for names that cannot be. svc may be nil.
func serviceSession(svc *Service) *route.Session {
	switch {
	case svc == nil:
	case svc.Session.Cookie != "":
		if route.CheckName(svc.Session.Cookie) == nil && checkCookiePath(svc.Session.Path) {
			return &route.Session{Cookie: route.SessionCookie{Name: svc.Session.Cookie, Path: svc.Session.Path}}
		}
	case svc.Session.Header != "":
		if route.CheckName(svc.Session.Header) == nil {
			return &route.Session{Header: svc.Session.Header}
		}
	}
	return nil
}

// checkCookiePath is whether the attribute Path of a cookie may be it.
func checkCookiePath(path string) bool {
	return strings.HasPrefix(path, "/") && !strings.ContainsAny(path, ";") && route.CheckValue(path) == nil
}

// routeSession is what a rule asks for; nil for nothing, and where the whole cannot be. A field that cannot be honoured is left out, and
// named.
func (t *translation) routeSession(o routeObject, r rule) *route.Session {
	in, path := r.persistence, r.path.Child("sessionPersistence")
	if in == nil {
		return nil
	}
	name := sessionName(r.name)
	if in.SessionName != nil && *in.SessionName != "" {
		name = *in.SessionName
		if err := route.CheckName(name); err != nil {
			t.problem(o.origin(), path.Child("sessionName"), "%q is no name of a cookie or header: letters, digits and !#$%%&'*+-.^_`|~ are; sessions do not persist", name)
			return nil
		}
	}
	if in.Type != nil && *in.Type == gatewayv1.HeaderBasedSessionPersistence {
		if in.CookieConfig != nil {
			t.problem(o.origin(), path.Child("cookieConfig"), "is for type Cookie; take it out, or take type: Header out")
		}
		if in.AbsoluteTimeout != nil {
			t.problem(o.origin(), path.Child("absoluteTimeout"), "a header has no time after which it does not hold; use type: Cookie")
		}
		return &route.Session{Header: strings.ToLower(name)}
	}
	if in.Type != nil && *in.Type != gatewayv1.CookieBasedSessionPersistence {
		t.problem(o.origin(), path.Child("type"), "%q is neither Cookie nor Header; sessions do not persist", *in.Type)
		return nil
	}
	out := &route.Session{Cookie: route.SessionCookie{Name: name}}
	permanent := in.CookieConfig != nil && in.CookieConfig.LifetimeType != nil && *in.CookieConfig.LifetimeType == gatewayv1.PermanentCookieLifetimeType
	timeout := t.apiDuration(o, path.Child("absoluteTimeout"), in.AbsoluteTimeout)
	switch {
	case permanent && timeout == 0:
		t.problem(o.origin(), path.Child("absoluteTimeout"), "is needed with lifetimeType: Permanent; the cookie is one of the client's session meanwhile")
	case !permanent && in.AbsoluteTimeout != nil:
		t.problem(o.origin(), path.Child("absoluteTimeout"), "holds for cookies with cookieConfig.lifetimeType: Permanent; set that, or take the timeout out")
	case permanent:
		out.Cookie.TTL = (timeout + time.Second - 1).Truncate(time.Second) // cookies count whole seconds
	}
	return out
}

// sessionName is that of a rule that names none: the same each time, and another one for each rule.
func sessionName(rule string) string {
	h := fnv.New32a()
	h.Write([]byte(rule))
	return "session-" + strconv.FormatUint(uint64(h.Sum32()), 16)
}

// sessionAt is the session of a match: clients send a cookie back with requests to the path of the match only, so that another rule may
// have one of the same name.
func sessionAt(s *route.Session, p route.Path) *route.Session {
	if s == nil || s.Header != "" {
		return s
	}
	out := *s
	out.Cookie.Path = "/"
	switch p.Kind {
	case route.PathExact, route.PathSegments:
		out.Cookie.Path = p.Value
	case route.PathPrefix:
		out.Cookie.Path = p.Value[:strings.LastIndexByte(p.Value, '/')+1]
	case route.PathRegex:
		out.Cookie.Path = literalDirectory(p.Value)
	case route.PathAny:
	}
	if p.IgnoreCase || !checkCookiePath(out.Cookie.Path) {
		out.Cookie.Path = "/"
	}
	return &out
}

// literalDirectory is what every path that a regular expression matches begins with, as far as the last slash that is certain.
func literalDirectory(pattern string) string {
	if strings.ContainsRune(pattern, '|') {
		return "/"
	}
	plain := strings.TrimPrefix(pattern, "^")
	if i := strings.IndexAny(plain, `.*+?()[]{}\^$`); i >= 0 {
		if i > 0 && strings.IndexByte("*+?{", plain[i]) >= 0 {
			i-- // which may be missing
		}
		plain = plain[:i]
	}
	return plain[:strings.LastIndexByte(plain, '/')+1]
}
