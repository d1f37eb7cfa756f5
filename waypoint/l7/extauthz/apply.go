package extauthz

import (
	"net/url"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

// metadataKey is where Envoy's HTTP filter leaves what the authorizer says about the request.
const metadataKey = "envoy.filters.http.ext_authz"

// Refusal is the answer to a client who may not pass.
type Refusal struct {
	Status int
	Body   string
	// Header replaces what there is of the same names; each may come more than once.
	Header  []httpmsg.Field
	Details string
}

// Settle makes the request what the verdict says, or refuses it.
func (f *Filter) Settle(i *exchange.Info, v *Verdict) *Refusal {
	for key, value := range v.metadata {
		i.SetMetadata(metadataKey, key, value)
	}
	switch v.Outcome {
	case Allowed:
		f.change(i, v)
		return nil
	case Denied:
		return v.refusal(403, "ext_authz_denied")
	case TooLarge:
		return &Refusal{Status: 413, Body: "Payload Too Large", Details: "request_payload_too_large"}
	case Invalid:
		return &Refusal{Status: 500, Details: "ext_authz_invalid"}
	case Failed:
	}
	if f.failOpen {
		if f.failOpenSays {
			i.Head.Header.Add("x-envoy-auth-failure-mode-allowed", "true")
		}
		return nil
	}
	if v.own {
		return v.refusal(f.statusOnError, "ext_authz_error")
	}
	return &Refusal{Status: f.statusOnError, Details: "ext_authz_error"}
}

func (v *Verdict) refusal(status int, details string) *Refusal {
	r := &Refusal{Status: status, Body: v.body, Details: details}
	if v.status != 0 {
		r.Status = v.status
	}
	for _, c := range v.changes {
		if c.name[0] != ':' {
			r.Header = append(r.Header, httpmsg.Field{Key: c.name, Value: c.value})
		}
	}
	return r
}

// change makes what the authorizer wants of the request, and lets its route be found again where that is asked for.
func (f *Filter) change(i *exchange.Info, v *Verdict) {
	if f.clearRoute && len(v.changes)+len(v.remove)+len(v.setQuery)+len(v.delQuery) > 0 {
		i.ClearRoute = true
	}
	for _, c := range v.changes {
		switch c.name {
		case ":path":
			if c.how == set && strings.HasPrefix(c.value, "/") && oneWord(c.value) {
				i.Head.Path = c.value
			}
		case ":authority", "host":
			if c.how == set && oneWord(c.value) {
				i.Head.Authority = c.value
			}
		case ":method":
			if c.how == set && i.Head.Method != "CONNECT" && c.value != "CONNECT" && validName(lower(c.value)) {
				i.Head.Method = c.value
			}
		default:
			if c.name[0] != ':' {
				c.apply(&i.Head.Header)
			}
		}
	}
	for _, name := range v.remove {
		i.Head.Header.Del(name)
	}
	if len(v.setQuery)+len(v.delQuery) > 0 {
		i.Head.Path = changeQuery(i.Head.Path, v.setQuery, v.delQuery)
	}
}

// oneWord is what a request line or a Host may have.
func oneWord(s string) bool { return s != "" && !strings.ContainsAny(s, " \t") }

func (c *change) apply(h *httpmsg.Header) {
	old, there := h.Joined(c.name)
	switch c.how {
	case set:
		h.Set(c.name, c.value)
	case appendIfPresent:
		if there {
			h.Set(c.name, old+","+c.value)
		}
	case add:
		h.Add(c.name, c.value)
	case addIfAbsent:
		if !there {
			h.Add(c.name, c.value)
		}
	case overwriteIfPresent:
		if there {
			h.Set(c.name, c.value)
		}
	}
}

// Changed is whether a response to a request that was allowed is to be changed.
func (v *Verdict) Changed() bool { return len(v.response) > 0 }

// Respond makes of the response what the authorizer wants.
func (v *Verdict) Respond(h *httpmsg.Header) {
	for n := range v.response {
		if c := &v.response[n]; c.name[0] != ':' {
			c.apply(h)
		}
	}
}

// changeQuery replaces and removes parameters; the others stay as they were written.
func changeQuery(path string, set []httpmsg.Field, remove []string) string {
	path, fragment, _ := strings.Cut(path, "#")
	path, query, _ := strings.Cut(path, "?")
	drop := map[string]bool{}
	for _, name := range remove {
		drop[name] = true
	}
	for _, p := range set {
		drop[p.Key] = true
	}
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(part, "=")
		if decoded, err := url.QueryUnescape(name); err == nil {
			name = decoded
		}
		if part != "" && !drop[name] {
			kept = append(kept, part)
		}
	}
	for _, p := range set {
		kept = append(kept, url.QueryEscape(p.Key)+"="+url.QueryEscape(p.Value))
	}
	if len(kept) > 0 {
		path += "?" + strings.Join(kept, "&")
	}
	if fragment != "" {
		path += "#" + fragment
	}
	return path
}
