package h1

import (
	"errors"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

var errInvalidHead = errors.New("head can't be written as HTTP/1.1")

// appendFields writes what a header holds, but nothing that the codec makes itself and nothing that would break out of its line.
func appendFields(dst []byte, h *httpmsg.Header) []byte {
	for i := range h.Fields() {
		f := &h.Fields()[i]
		if framingField(f.Key) || !isToken(f.Key) || !safe(f.Value) {
			continue
		}
		dst = append(dst, f.Key...)
		dst = append(dst, ": "...)
		dst = append(dst, f.Value...)
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// safe is whether a value can't end its line.
func safe(s string) bool {
	return strings.IndexByte(s, '\n') < 0 && strings.IndexByte(s, '\r') < 0 && strings.IndexByte(s, 0) < 0
}

// appendRequest writes the head of a request, and says how its body is framed.
func appendRequest(dst []byte, h *httpmsg.Head, end bool) (_ []byte, kind bodyKind, length int64, err error) {
	target := h.Path
	if h.Method == "CONNECT" {
		target = h.Authority
	}
	if !isToken(h.Method) || !writableTarget(target) || h.Authority != "" && !validAuthority(h.Authority) || !safe(h.Upgrade) {
		return dst, 0, 0, errInvalidHead
	}
	dst = append(dst, h.Method...)
	dst = append(dst, ' ')
	dst = append(dst, target...)
	dst = append(dst, " HTTP/1.1\r\nhost: "...)
	dst = append(dst, h.Authority...)
	dst = append(dst, "\r\n"...)
	dst = appendFields(dst, &h.Header)
	if h.Expects && !end {
		dst = append(dst, "expect: 100-continue\r\n"...)
	}
	tunnel := h.Upgrade != "" || h.Method == "CONNECT"
	if h.Upgrade != "" && h.Method != "CONNECT" {
		dst = append(dst, "connection: upgrade\r\nupgrade: "...)
		dst = append(dst, h.Upgrade...)
		dst = append(dst, "\r\n"...)
	}
	dst, kind, length = appendLength(dst, h.ContentLength, end || tunnel, !tunnel && impliesBody(h.Method))
	return append(dst, "\r\n"...), kind, length, nil
}

// impliesBody is whether servers expect a content-length from a request of the method even if there is no body.
func impliesBody(method string) bool { return method == "POST" || method == "PUT" || method == "PATCH" }

// appendLength writes the field that frames the body.
func appendLength(dst []byte, length int64, end, zero bool) ([]byte, bodyKind, int64) {
	switch {
	case end && (length == 0 || zero):
		return append(dst, "content-length: 0\r\n"...), bodyNone, 0
	case end:
		return dst, bodyNone, 0
	case length >= 0:
		return appendNumber(dst, length), bodyLength, length
	}
	return append(dst, "transfer-encoding: chunked\r\n"...), bodyChunked, 0
}

func appendNumber(dst []byte, length int64) []byte {
	dst = append(dst, "content-length: "...)
	dst = strconv.AppendInt(dst, length, 10)
	return append(dst, "\r\n"...)
}

func appendStatusLine(dst []byte, v httpmsg.Version, status int) []byte {
	if v == httpmsg.HTTP10 {
		dst = append(dst, "HTTP/1.0 "...)
	} else {
		dst = append(dst, "HTTP/1.1 "...)
	}
	dst = append(dst, byte('0'+status/100%10), byte('0'+status/10%10), byte('0'+status%10), ' ')
	dst = append(dst, reason(status)...)
	return append(dst, "\r\n"...)
}

// reason is the phrase of the status codes that are met.
func reason(status int) string {
	switch status {
	case 100:
		return "Continue"
	case 101:
		return "Switching Protocols"
	case 103:
		return "Early Hints"
	case 200:
		return "OK"
	case 201:
		return "Created"
	case 202:
		return "Accepted"
	case 204:
		return "No Content"
	case 206:
		return "Partial Content"
	case 301:
		return "Moved Permanently"
	case 302:
		return "Found"
	case 303:
		return "See Other"
	case 304:
		return "Not Modified"
	case 307:
		return "Temporary Redirect"
	case 308:
		return "Permanent Redirect"
	}
	return errorReason(status)
}

func errorReason(status int) string {
	switch status {
	case 400:
		return "Bad Request"
	case 401:
		return "Unauthorized"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 408:
		return "Request Timeout"
	case 409:
		return "Conflict"
	case 413:
		return "Payload Too Large"
	case 415:
		return "Unsupported Media Type"
	case 417:
		return "Expectation Failed"
	case 422:
		return "Unprocessable Entity"
	case 426:
		return "Upgrade Required"
	case 429:
		return "Too Many Requests"
	case 431:
		return "Request Header Fields Too Large"
	case 500:
		return "Internal Server Error"
	case 501:
		return "Not Implemented"
	case 502:
		return "Bad Gateway"
	case 503:
		return "Service Unavailable"
	case 504:
		return "Gateway Timeout"
	case 505:
		return "HTTP Version Not Supported"
	}
	return ""
}
