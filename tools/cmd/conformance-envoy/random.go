package main

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"unicode"
)

// randomRequests are strange ones, the same each time: combinations of what proxies treat differently.
func (f *fixture) randomRequests() []request {
	h := fnv.New64a()
	h.Write([]byte(f.name))
	rnd := rand.New(rand.NewPCG(h.Sum64(), 1))
	var out []request
	for i := range f.random {
		if i%3 == 2 {
			r := randomFields(rnd)
			if strings.Contains(f.mesh, "ISTHMUS_HTTP2_PATHS") {
				r.Difference, r.Isthmus = "", want{}
			}
			r.Name = fmt.Sprintf("random %d: %q body %q", i, r.Fields, r.Body)
			out = append(out, r)
			continue
		}
		r := randomRequest(rnd)
		r.Name = fmt.Sprintf("random %d: %q", i, strings.TrimSuffix(r.Raw, "X-Echo-Key: {key}\r\n\r\n"))
		out = append(out, r)
	}
	return out
}

func pick(rnd *rand.Rand, from ...string) string { return from[rnd.IntN(len(from))] }

// maybe returns one of the strings in one of n cases, else nothing.
func maybe(rnd *rand.Rand, n int, from ...string) string {
	if rnd.IntN(n) == 0 {
		return pick(rnd, from...)
	}
	return ""
}

func randomRequest(rnd *rand.Rand) request {
	var b strings.Builder
	method := pick(rnd, "GET", "GET", "GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "get", "FOO-BAR", "M_1!")
	path := "/" + randomPath(rnd) + maybe(rnd, 3, "?", "?a=b", "?color=red", "?page=12&color=red", "?a=%2F&b=..//", "?x=é", "?a#b", "?&&=&")
	if rnd.IntN(20) == 0 {
		path = pick(rnd, "http://abs.example.com", "http://abs.example.com/x", "https://abs.example.com/exact", "*", "//", "/", "HTTP://Abs.Example.com/prefix")
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", method, path)
	host := pick(rnd, "httpbin", "httpbin:8000", "HTTPBIN", "other.example.com", "httpbin.default.svc.cluster.local", "other.example.com:80", "x:99999", "[::1]", "a b", "a_b", "")
	fmt.Fprintf(&b, "%s: %s\r\n", pick(rnd, "Host", "host", "HOST"), host)
	for range rnd.IntN(4) {
		b.WriteString(randomHeader(rnd) + "\r\n")
	}
	body := ""
	switch rnd.IntN(6) {
	case 0:
		body = "hello"
		fmt.Fprintf(&b, "Content-Length: %s\r\n", pick(rnd, "5", "5", "5", "05", "5, 5", "+5"))
	case 1:
		body = "5\r\nhello\r\n0\r\n" + maybe(rnd, 3, "Trailer-X: 1\r\n") + "\r\n"
		fmt.Fprintf(&b, "Transfer-Encoding: %s\r\n", pick(rnd, "chunked", "chunked", "Chunked", "gzip, chunked", "identity", "chunked, chunked"))
	case 2:
		b.WriteString("Content-Length: 0\r\n")
	}
	return request{Via: "waypoint", To: "httpbin:8000", Method: method, Raw: b.String() + "X-Echo-Key: {key}\r\n\r\n" + body}
}

// randomFields is a request over HTTP/2, now and then against its rules.
func randomFields(rnd *rand.Rand) request {
	method := pick(rnd, "GET", "GET", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH", "FOO")
	fields := [][2]string{
		{":method", method},
		{":scheme", pick(rnd, "http", "http", "http", "http", "http", "http", "https", "https", "ftp", "")},
		{":authority", pick(rnd, "httpbin:8000", "httpbin", "httpbin", "HTTPBIN", "other.example.com", "other.example.com", "a b", "user@httpbin", "")},
		{":path", "/" + randomPath(rnd) + maybe(rnd, 3, "?color=red", "?a#b", "?x=é", "#f")},
	}
	if rnd.IntN(12) == 0 {
		fields[3][1] = pick(rnd, "*", "", "exact", "http://abs.example.com/x", "//", "/\x00")
	}
	if rnd.IntN(12) == 0 {
		drop := rnd.IntN(4)
		fields = append(fields[:drop], fields[drop+1:]...)
	}
	for range rnd.IntN(4) {
		name, value, _ := strings.Cut(randomHeader(rnd), ":")
		name, value = strings.ToLower(name), strings.TrimSpace(value)
		if rnd.IntN(10) == 0 {
			name, value = pick(rnd, "Upper", ":unknown", ":path", "transfer-encoding", "host", "bad name", "a\x00b", "", "content-length"),
				pick(rnd, "1", "chunked", "other.example.com", "a\r\nb: c", "a\x00", " x", "99")
		}
		fields = append(fields, [2]string{name, value})
	}
	body := ""
	if method == "POST" && rnd.IntN(2) == 0 {
		body = "hello"
		if rnd.IntN(2) == 0 {
			fields = append(fields, [2]string{"content-length", pick(rnd, "5", "4", "6", "x", "5")})
		}
	}
	r := request{Via: "waypoint", To: "httpbin:8000", Method: method, Body: body, Fields: append(fields, [2]string{"x-echo-key", "{key}"})}
	if slices.ContainsFunc(fields, func(f [2]string) bool { return f[0] == ":path" && noURI(f[1]) }) {
		r.Difference, r.Isthmus = "a :path with bytes that are not ASCII, or without a leading slash", want{Refused: true}
	}
	return r
}

// noURI is whether our engine, unlike Envoy, refuses a path (docs/differences.md).
func noURI(path string) bool {
	return path != "" && path != "*" && path[0] != '/' || strings.ContainsFunc(path, func(c rune) bool { return c > unicode.MaxASCII })
}

func randomPath(rnd *rand.Rand) string {
	segments := make([]string, 1+rnd.IntN(3))
	for i := range segments {
		segments[i] = pick(rnd, "exact", "prefix", "regex", "42", "case", "several", "all", "a", "..", ".", "", "%2e%2e", "%2F", "a;b", "a%20b", "a+b", "~u",
			"%7Eu", "A", "é", "%C3%A9", "a%", "%zz", "a\\b", "a|b", "<x>", "{x}", "[y]", "\"q\"", "`", "^", "a@b:c", "!$&'()*,=")
	}
	return strings.Join(segments, "/")
}

func randomHeader(rnd *rand.Rand) string {
	name := pick(rnd, "end-user", "x-team", "cookie", "x-present", "a", "b", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port",
		"x-request-id", "connection", "te", "expect", "upgrade", "x-envoy-attempt-count", "x-envoy-internal", "x-envoy-external-address",
		"x-envoy-original-path", "x-envoy-retry-on", "x-envoy-expected-rq-timeout-ms", "x-envoy-upstream-rq-timeout-ms", "via", "forwarded", "accept-encoding",
		"content-type", "user-agent", "keep-alive", "proxy-connection", "proxy-authorization", "traceparent", "x-b3-traceid", "date", "range", "referer",
		"X_under_score", "x-empty", "if-none-match", "grpc-timeout", "x-envoy-decorator-operation", "x-envoy-peer-metadata", "x-envoy-force-trace", "x-client-trace-id")
	value := pick(rnd, "jason", "red-1", "user=jason", "1", "2", "22", "", " padded ", "192.0.2.1", "192.0.2.1, 10.0.0.1", "https", "close", "keep-alive", "x-team",
		"trailers", "gzip", "a, b", "é", "\x80\xff", "a\tb", "100S", "true", "deadbeef-1111-2222-3333-444444444444", "websocket", "h2c", "*", "text/plain; a=\"b\"")
	return name + ":" + pick(rnd, " ", "", "  ") + value
}
