package main

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// decorator is a header that Istio has sent both ways, and ours has not (docs/differences.md).
const decorator = "x-envoy-decorator-operation"

// versionSuffix is what replicas of one app differ in.
var versionSuffix = regexp.MustCompile(`-v[0-9]+$`)

// facts are the lines of a result that both engines must agree on.
func facts(r *result, want want) []string {
	var out []string
	for _, answer := range r.answers {
		for _, fact := range facts(answer, want) {
			out = append(out, fmt.Sprintf("of those with %d: %s", answer.status, fact))
		}
	}
	if out != nil {
		return out
	}
	if r.refused != "" {
		return []string{"refused"} // how a tunnel is refused is nothing that an application sees
	}
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	add("status: %d", r.status)
	if r.metCount {
		add("met: %v", r.met)
	}
	if r.tls != "" {
		add("handshake: %s", r.tls)
	}
	if r.log != "" {
		add("log: %s", r.log)
	}
	name := func(workload string) string {
		if len(want.Shares) > 0 {
			return "(by its share)" // who answers the last request is each engine's draw; of the shares unmet judges
		}
		if want.Workload == "" {
			return versionSuffix.ReplaceAllString(workload, "")
		}
		return workload
	}
	out = append(out, headerFacts("response", r.header, name)...)
	out = append(out, headerFacts("trailer", r.trailer, name)...)
	if want.Attempts > 0 {
		add("attempts: %d", len(r.attempts))
	}
	if r.seen == nil {
		add("body: %q", r.body)
		return out
	}
	s := r.seen
	add("workload: %s", name(s.Workload))
	add("backend saw: %s %s %s host %s peer %s", s.Protocol, s.Method, s.Path, s.Host, s.Peer)
	if s.Body != "" {
		add("backend saw body: %q", s.Body)
	}
	if s.Client != "" {
		add("backend was told of the client %s", s.Client)
	}
	for _, k := range sortedKeys(s.Headers) {
		switch v := s.Headers[k]; {
		case k == "x-echo-key", k == decorator:
		case k == "x-envoy-expected-rq-timeout-ms" && s.Headers["x-envoy-attempt-count"] > "1":
			add("backend saw %s: %s", k, rest(v))
		default:
			add("backend saw %s: %s", k, value(k, v))
		}
	}
	return out
}

// rest is what was left of a request's time when it was tried again, in seconds that have begun.
func rest(v string) string {
	ms, err := strconv.Atoi(v)
	if err != nil {
		return v
	}
	return fmt.Sprintf("within %d s", (ms+999)/1000)
}

func headerFacts(kind string, h http.Header, name func(string) string) []string {
	var out []string
	for k, v := range h {
		k = strings.ToLower(k)
		switch k {
		case "date", decorator:
			continue
		case "content-length":
			if h.Get("X-Echo-Workload") != "" {
				continue // depends on what the backend saw
			}
		case "x-echo-workload":
			v = []string{name(v[0])}
		}
		out = append(out, fmt.Sprintf("%s %s: %s", kind, k, value(k, strings.Join(v, ", "))))
	}
	slices.Sort(out)
	return out
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// hashCookie is the value of a cookie that an engine has made to find the same host again.
var hashCookie = regexp.MustCompile(`="?[0-9a-f]{16}"?`)

var (
	encoded     = regexp.MustCompile(`[A-Za-z0-9+/]{12,}=*`)
	hostAddress = regexp.MustCompile(`(envoy://[a-z_]+/)?[0-9.]+:[0-9]+`)
)

// session tells what a session's cookie or header says, but for the host, which each engine draws, and the time, which each counts in its
// own way.
func session(v string) string {
	return encoded.ReplaceAllStringFunc(v, func(text string) string {
		b, err := base64.StdEncoding.DecodeString(text)
		at := hostAddress.FindSubmatchIndex(b)
		if err != nil || at == nil {
			return text
		}
		out := "(host"
		if at[2] >= 0 {
			out += " behind " + string(b[at[2]:at[3]])
		}
		if at[0] > 0 {
			out += " in a message"
		}
		if at[1] < len(b) {
			out += " with a time"
		}
		return out + ")"
	})
}

// value replaces what is different each time by what kind it is of.
func value(name, v string) string {
	switch {
	case name == "x-request-id" && uuid.MatchString(v):
		if v[14] != '4' {
			return "(uuid " + v[14:15] + ")" // why the request is traced
		}
		return "(uuid)"
	case strings.HasPrefix(name, "x-b3-") || name == "traceparent" || name == "b3":
		return traceIDs(v)
	case name == "cookie" || name == "set-cookie":
		return session(hashCookie.ReplaceAllString(v, "=(hash)"))
	case name == "x-session":
		return session(v)
	case name == "connection":
		return strings.ToLower(v)
	case name == "x-envoy-upstream-service-time" && v != "":
		return "(milliseconds)"
	case (name == "retry-after" || name == "x-ratelimit-reset") && v != "":
		return "(seconds)"
	case name == "content-length":
		if n, err := strconv.ParseUint(v, 10, 63); err == nil {
			return strconv.FormatUint(n, 10) // ours writes the number, Envoy what it read, such as 05
		}
	}
	return v
}

var (
	hexID    = regexp.MustCompile(`[0-9a-f]{16,32}`)
	givenIDs = []string{"4bf92f3577b34da6a3ce929d0e0e4736", "4bf92f3577b34da6", "00f067aa0ba902b7", "00f067aa0ba902b6"}
)

// traceIDs replaces the ids of traces and spans that an engine has made. Those of the table stay.
func traceIDs(v string) string {
	return hexID.ReplaceAllStringFunc(v, func(id string) string {
		switch {
		case slices.Contains(givenIDs, id) || strings.Trim(id, "0") == "":
			return id
		case len(id) == 32:
			return "(trace)"
		}
		return "(span)"
	})
}

// differences are the facts that only one side has.
func differences(envoy, ours []string) []string {
	var out []string
	for _, f := range envoy {
		if !slices.Contains(ours, f) {
			out = append(out, "envoy:   "+f)
		}
	}
	for _, f := range ours {
		if !slices.Contains(envoy, f) {
			out = append(out, "isthmus: "+f)
		}
	}
	return out
}

// tolerance is by how many percent a share may be off: engines begin anywhere in their order of hosts.
const tolerance = 8

// unmet are the expectations that a result does not meet.
func unmet(r *result, w want) []string {
	var out []string
	check := func(what string, got, want any) {
		if got != want {
			out = append(out, fmt.Sprintf("%s is %v, want %v", what, got, want))
		}
	}
	if reflect.ValueOf(w).IsZero() {
		return nil // then the engines only have to agree
	}
	if w.Refused || r.refused != "" {
		check("refused", r.refused != "", w.Refused)
		return out
	}
	if w.Status != 0 {
		check("status", r.status, w.Status)
	}
	s := r.seen
	if s == nil {
		s = &seen{}
	}
	for _, c := range []struct{ what, got, want string }{
		{"workload", s.Workload, w.Workload},
		{"peer", s.Peer, w.Peer},
		{"method", s.Method, w.Method},
		{"path", s.Path, w.Path},
		{"host", s.Host, w.Host},
		{"client that the backend was told of", s.Client, w.Client},
	} {
		if c.want != "" {
			check(c.what, c.got, c.want)
		}
	}
	if w.Distinct > 0 {
		check("how many workloads have answered", len(r.met), w.Distinct)
	}
	if len(w.Statuses) > 0 && !slices.Equal(r.statuses, w.Statuses) {
		out = append(out, fmt.Sprintf("the statuses are %v, want %v", r.statuses, w.Statuses))
	}
	for _, k := range sortedKeys(w.Shares) {
		if got := r.shares[k]; got < w.Shares[k]-tolerance || got > w.Shares[k]+tolerance {
			out = append(out, fmt.Sprintf("%s has answered %d %% of the requests, want about %d", k, got, w.Shares[k]))
		}
	}
	if len(w.AnyOf) > 0 && !slices.Contains(w.AnyOf, s.Workload) {
		out = append(out, fmt.Sprintf("workload is %q, want one of %v", s.Workload, w.AnyOf))
	}
	for _, k := range sortedKeys(w.Headers) {
		got, have := s.Headers[strings.ToLower(k)]
		if strings.Contains(w.Headers[k], "(") {
			got = value(strings.ToLower(k), got)
		}
		out = append(out, headerUnmet("backend's header "+k, got, have, w.Headers[k])...)
	}
	for _, k := range sortedKeys(w.Response) {
		values := r.header.Values(k)
		out = append(out, headerUnmet("response's header "+k, strings.Join(values, ", "), len(values) > 0, w.Response[k])...)
	}
	if w.Body != "" && !strings.Contains(r.body, w.Body) {
		out = append(out, fmt.Sprintf("body is %q, want %q", r.body, w.Body))
	}
	if w.TLS != "" && !strings.Contains(r.tls, w.TLS) {
		out = append(out, fmt.Sprintf("the handshake is %q, want %q", r.tls, w.TLS))
	}
	if w.Log != "" && !strings.Contains(r.log, w.Log) {
		out = append(out, fmt.Sprintf("the log says %q, want %q", r.log, w.Log))
	}
	if w.Mirrored != "" && !slices.Contains(r.attempts, w.Mirrored) {
		out = append(out, fmt.Sprintf("%s has not got the mirrored request, only %v", w.Mirrored, r.attempts))
	}
	if w.Attempts > 0 {
		check("attempts", len(r.attempts), w.Attempts)
	}
	if ms := int(r.took.Milliseconds()); ms < w.MinMS || w.MaxMS > 0 && ms > w.MaxMS {
		out = append(out, fmt.Sprintf("took %d ms, want %d to %d", ms, w.MinMS, w.MaxMS))
	}
	return out
}

func headerUnmet(what, got string, have bool, want string) []string {
	switch {
	case want == "-" && have:
		return []string{fmt.Sprintf("%s is %q, want none", what, got)}
	case want == "*" && !have:
		return []string{what + " is not there"}
	case want != "-" && want != "*" && got != want:
		return []string{fmt.Sprintf("%s is %q, want %q", what, got, want)}
	}
	return nil
}
