package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strings"
)

// maxGenerated bounds the generated requests of a fixture.
const maxGenerated = 60

// routeConfig is a RouteConfiguration as far as requests are made from it.
type routeConfig struct {
	Name         string `json:"name"`
	VirtualHosts []struct {
		Domains []string `json:"domains"`
		Routes  []struct {
			Name  string     `json:"name"`
			Match routeMatch `json:"match"`
		} `json:"routes"`
	} `json:"virtual_hosts"`
}

type routeMatch struct {
	Prefix              *string         `json:"prefix"`
	Path                *string         `json:"path"`
	PathSeparatedPrefix *string         `json:"path_separated_prefix"`
	CaseSensitive       *bool           `json:"case_sensitive"`
	Headers             []headerMatch   `json:"headers"`
	QueryParameters     []headerMatch   `json:"query_parameters"`
	SafeRegex           json.RawMessage `json:"safe_regex"`
}

type headerMatch struct {
	Name         string       `json:"name"`
	StringMatch  *stringMatch `json:"string_match"`
	PresentMatch *bool        `json:"present_match"`
	InvertMatch  bool         `json:"invert_match"`
}

type stringMatch struct {
	Exact    string `json:"exact"`
	Prefix   string `json:"prefix"`
	Suffix   string `json:"suffix"`
	Contains string `json:"contains"`
}

// generate makes requests from the routes that Envoy has, and some around the policies of the services that the fixture names.
func (b *testbed) generate(ctx context.Context, f *fixture) ([]request, error) {
	var out []request
	for _, way := range ways() {
		if !f.uses(way) {
			continue
		}
		dump, err := b.configOf(ctx, b.proxies[way][0])
		if err != nil {
			return nil, err
		}
		inUse := dump.routesInUse()
		for _, c := range dump.Configs {
			for _, r := range c.DynamicRouteConfigs {
				var rc routeConfig
				if err := json.Unmarshal(r.RouteConfig, &rc); err != nil {
					return nil, fmt.Errorf("routes of %s: %w", way, err)
				}
				if !inUse[rc.Name] {
					continue // of a listener that drains
				}
				if to, ok := f.destinationOf(way, rc.Name); ok {
					out = append(out, rc.requests(way, to)...)
				}
			}
		}
	}
	out = append(out, f.policyRequests()...)
	if len(out) > maxGenerated {
		out = out[:maxGenerated]
	}
	return out, nil
}

var routeName = regexp.MustCompile(`"route_config_name":\s*"([^"]*)"`)

// routesInUse are the routes that active listeners name.
func (d *configDump) routesInUse() map[string]bool {
	out := map[string]bool{}
	for _, c := range d.Configs {
		for _, l := range c.DynamicListeners {
			if l.ActiveState == nil {
				continue
			}
			for _, found := range routeName.FindAllSubmatch(l.ActiveState.Listener, -1) {
				out[string(found[1])] = true
			}
		}
	}
	return out
}

// destinationOf is where requests for a route configuration go; only services that the fixture names are asked.
func (f *fixture) destinationOf(way, routes string) (string, bool) {
	text := strings.Join(f.config, "\n")
	if way != "waypoint" {
		port, ok := strings.CutPrefix(routes, "http.")
		return port, ok && !strings.Contains(port, ".") && (way == "ingress" || f.hasGateway()) && strings.Contains(text, "Gateway")
	}
	parts := strings.Split(routes, "|") // inbound-vip|PORT|http|HOST
	if len(parts) != 4 {
		return "", false
	}
	for _, s := range services() {
		if s.host() == parts[3] && s.name != "marker" && strings.Contains(text, s.name) {
			return s.name + "." + s.namespace + ":" + parts[1], true
		}
	}
	return "", false
}

func (rc routeConfig) requests(way, to string) []request {
	var out []request
	for _, vh := range rc.VirtualHosts {
		host := ""
		for _, d := range vh.Domains {
			if way != "waypoint" && (host == "" || len(d) < len(host)) {
				host = strings.Replace(d, "*", "any", 1)
			}
		}
		if host == "any" || strings.HasPrefix(host, "any:") {
			host = "anything.example.org"
		}
		if strings.HasPrefix(host, "marker.") {
			continue
		}
		for i, route := range vh.Routes {
			r, ok := route.Match.request()
			if !ok {
				continue
			}
			r.Via, r.To, r.Host = way, to, host
			r.Name = fmt.Sprintf("generated from %s, %s, route %d (%s)", rc.Name, host, i, route.Name)
			out = append(out, r)
			for _, v := range variants(r) {
				v.Name = r.Name + ", " + v.Name
				out = append(out, v)
			}
		}
	}
	return out
}

// variants are requests that may just not match.
func variants(r request) []request {
	var out []request
	add := func(name string, change func(*request)) {
		v := r
		v.Headers = maps.Clone(r.Headers)
		v.Name = name
		change(&v)
		out = append(out, v)
	}
	for _, k := range sortedKeys(r.Headers) {
		add("without "+k, func(v *request) { delete(v.Headers, k) })
		add("another "+k, func(v *request) { v.Headers[k] += "x" })
	}
	add("longer path", func(v *request) {
		path, query, _ := strings.Cut(v.Path, "?")
		v.Path = path + "x/../y//z?" + query
	})
	add("as HTTP/2", func(v *request) { v.H2 = true })
	return out
}

// request is one that matches; there is none for a regular expression.
func (m routeMatch) request() (request, bool) {
	r := request{Headers: map[string]string{}}
	switch {
	case m.Path != nil:
		r.Path = *m.Path
	case m.Prefix != nil:
		r.Path = *m.Prefix
		if strings.HasSuffix(r.Path, "/") {
			r.Path += "some/thing"
		}
	case m.PathSeparatedPrefix != nil:
		r.Path = *m.PathSeparatedPrefix + "/below"
	default:
		return r, false
	}
	if m.CaseSensitive != nil && !*m.CaseSensitive {
		r.Path = strings.ToUpper(r.Path)
	}
	for _, h := range m.Headers {
		v, ok := h.value()
		switch {
		case !ok || h.InvertMatch:
		case h.Name == ":method":
			r.Method = v
		case h.Name == ":authority":
			r.Host = v
		case strings.HasPrefix(h.Name, ":"):
		default:
			r.Headers[h.Name] = v
		}
	}
	var query []string
	for _, q := range m.QueryParameters {
		if v, ok := q.value(); ok {
			query = append(query, q.Name+"="+v)
		}
	}
	if len(query) > 0 {
		r.Path += "?" + strings.Join(query, "&")
	}
	return r, true
}

func (h headerMatch) value() (string, bool) {
	switch s := h.StringMatch; {
	case h.PresentMatch != nil:
		return "there", *h.PresentMatch
	case s == nil:
		return "", false
	case s.Exact != "":
		return s.Exact, true
	case s.Prefix != "":
		return s.Prefix + "more", true
	case s.Suffix != "":
		return "more" + s.Suffix, true
	case s.Contains != "":
		return "a" + s.Contains + "b", true
	}
	return "", false
}

// policyRequests are clients × methods × paths, for services that the fixture's policies name.
func (f *fixture) policyRequests() []request {
	text := strings.Join(f.config, "\n")
	if !strings.Contains(text, "AuthorizationPolicy") && !strings.Contains(text, "RequestAuthentication") {
		return nil
	}
	var out []request
	for _, s := range services() {
		if s.ports[0].name != "http" || !strings.Contains(text, "name: "+s.name) {
			continue
		}
		for _, as := range []string{"curl", "productpage-v1", "stranger"} {
			for _, method := range []string{"GET", "POST", "DELETE"} {
				for _, path := range []string{"/", "/admin/x", "/public/../admin//x?q=/public"} {
					out = append(out, request{
						Name: fmt.Sprintf("generated: %s as %s %s %s", s.name, as, method, path), Via: "waypoint", As: as,
						To: fmt.Sprintf("%s.%s:%d", s.name, s.namespace, s.ports[0].port), Method: method, Path: path,
					})
				}
			}
		}
	}
	return out
}
