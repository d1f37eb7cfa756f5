package httpbin

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// request is what arrived, without a body.
type request struct {
	Args    url.Values  `json:"args"`
	Headers http.Header `json:"headers"`
	Method  string      `json:"method"`
	Origin  string      `json:"origin"`
	URL     string      `json:"url"`
}

// requestBody adds the body: raw, and decoded by its type.
type requestBody struct {
	request
	Data  string              `json:"data"` // a data: URL where it is no text
	Files map[string][]string `json:"files"`
	Form  url.Values          `json:"form"`
	JSON  json.RawMessage     `json:"json"` // null where the body is not JSON
}

func describe(r *http.Request) request {
	return request{Args: r.URL.Query(), Headers: allHeaders(r), Method: r.Method, Origin: origin(r), URL: address(r)}
}

// allHeaders returns the headers and Host, which Go keeps apart.
func allHeaders(r *http.Request) http.Header {
	h := r.Header.Clone()
	h.Set("Host", r.Host)
	return h
}

// origin is the client: the first of X-Forwarded-For, else who connected.
func origin(r *http.Request) string {
	if first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ","); strings.TrimSpace(first) != "" {
		return strings.TrimSpace(first)
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// address is the URL as the client wrote it.
func address(r *http.Request) string {
	u := *r.URL
	u.Host = r.Host
	u.Scheme = "http"
	if r.TLS != nil {
		u.Scheme = "https"
	}
	if p := r.Header.Get("X-Forwarded-Proto"); p == "http" || p == "https" {
		u.Scheme = p
	}
	return u.String()
}

func inspectRequest(w http.ResponseWriter, r *http.Request) {
	write(w, http.StatusOK, describe(r))
}

func inspectBody(w http.ResponseWriter, r *http.Request) {
	b, err := readBody(w, r)
	if err != nil {
		refuse(w, err)
		return
	}
	write(w, http.StatusOK, b)
}

func readBody(w http.ResponseWriter, r *http.Request) (requestBody, error) {
	b := requestBody{request: describe(r), Files: map[string][]string{}, Form: url.Values{}, JSON: json.RawMessage("null")}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return b, fmt.Errorf("read body: %w", err)
	}
	b.Data = text(raw, r.Header.Get("Content-Type"))
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		kind = "" // an unknown type is shown raw
	}
	switch kind {
	case "application/json":
		if json.Valid(raw) {
			b.JSON = raw
		}
	case "application/x-www-form-urlencoded":
		if b.Form, err = url.ParseQuery(string(raw)); err != nil {
			return b, fmt.Errorf("parse form: %w", err)
		}
	case "multipart/form-data":
		return b, b.parseMultipart(raw, params["boundary"])
	}
	return b, nil
}

// text returns data as it is, or as a data: URL where it is not text.
func text(data []byte, contentType string) string {
	if utf8.Valid(data) {
		return string(data)
	}
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	return "data:" + contentType + ";base64," + base64.StdEncoding.EncodeToString(data)
}

func headers(w http.ResponseWriter, r *http.Request) {
	write(w, http.StatusOK, map[string]http.Header{"headers": allHeaders(r)})
}

func ip(w http.ResponseWriter, r *http.Request) {
	write(w, http.StatusOK, map[string]string{"origin": origin(r)})
}

func userAgent(w http.ResponseWriter, r *http.Request) {
	write(w, http.StatusOK, map[string]string{"user-agent": r.UserAgent()})
}
