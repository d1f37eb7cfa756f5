package l7

import (
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// redirect is a compiled RedirectAction.
type redirect struct {
	https        bool
	scheme, host string
	port         string // ":8443"
	path         string
	pathHasQuery bool
	pathRewrite
	stripQuery bool
	status     int
}

func compileRedirect(p *routev3.RedirectAction) (*redirect, error) {
	r := &redirect{
		https: p.GetHttpsRedirect(), scheme: p.GetSchemeRedirect(), host: p.GetHostRedirect(), path: p.GetPathRedirect(),
		pathHasQuery: strings.Contains(p.GetPathRedirect(), "?"), stripQuery: p.GetStripQuery(),
	}
	if n := p.GetPortRedirect(); n != 0 {
		r.port = ":" + strconv.FormatUint(uint64(n), 10)
	}
	switch p.GetResponseCode() {
	case routev3.RedirectAction_MOVED_PERMANENTLY:
		r.status = 301
	case routev3.RedirectAction_FOUND:
		r.status = 302
	case routev3.RedirectAction_SEE_OTHER:
		r.status = 303
	case routev3.RedirectAction_TEMPORARY_REDIRECT:
		r.status = 307
	case routev3.RedirectAction_PERMANENT_REDIRECT:
		r.status = 308
	default:
		return nil, strict.Errorf("response_code", "%v is not supported", p.GetResponseCode())
	}
	var err error
	r.pathRewrite, err = compilePathRewrite(p.GetPrefixRewrite(), p.GetRegexRewrite())
	return r, err
}

// location is where to; it lives as long as the request.
func (d *redirect) location(r *Request, m *routeMatch) string {
	scheme := r.Head.Scheme
	switch {
	case d.scheme != "":
		scheme = d.scheme
	case d.https:
		scheme = "https"
	}
	host := d.host
	if host == "" {
		host = d.requestHost(r, scheme)
	}
	var path string
	switch {
	case d.path != "" && d.pathHasQuery:
		path = d.path
	case d.path != "":
		path = d.path
		if i := strings.IndexByte(r.Head.Path, '?'); i >= 0 && !d.stripQuery {
			path = r.Scratch.Concat(path, r.Head.Path[i:])
		}
	default:
		path = d.apply(r, m, r.Head.Path)
		if i := strings.IndexByte(path, '?'); i >= 0 && d.stripQuery {
			path = path[:i]
		}
	}
	return r.Scratch.Concat(scheme, "://", host, d.port, path)
}

// requestHost is the host of the request, without a port that would be wrong after the redirect.
func (d *redirect) requestHost(r *Request, scheme string) string {
	host := r.Head.Authority
	i := strings.LastIndexByte(host, ':')
	if strings.HasPrefix(host, "[") {
		if i = strings.LastIndex(host, "]:"); i >= 0 {
			i++
		}
	}
	if i < 0 {
		return host
	}
	port, proto := host[i:], r.Head.Header.Value("x-forwarded-proto")
	remove := d.port != ""
	if scheme != proto {
		remove = remove || proto == "https" && port == ":443" || proto == "http" && port == ":80"
	}
	if remove {
		return host[:i]
	}
	return host
}

// apply rewrites a path, with its query.
func (w *pathRewrite) apply(r *Request, m *routeMatch, path string) string {
	switch {
	case w.prefix != "":
		return r.Scratch.Concat(w.prefix, path[min(m.matched(path), len(path)):])
	case w.regex != nil:
		end := strings.IndexByte(path, '?')
		if end < 0 {
			end = len(path)
		}
		return w.regex.ReplaceAllString(path[:end], w.replace) + path[end:]
	}
	return path
}
