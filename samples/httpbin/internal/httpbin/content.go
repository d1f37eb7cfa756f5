package httpbin

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// responseHeaders sets a header for each argument, and lists them.
func responseHeaders(w http.ResponseWriter, r *http.Request) {
	args := r.URL.Query()
	for name, values := range args {
		for _, v := range values {
			w.Header().Add(name, v)
		}
	}
	// A Content-Type that was asked for stays; write would replace it.
	if w.Header().Get("Content-Type") == "" {
		write(w, http.StatusOK, args)
		return
	}
	_ = json.NewEncoder(w).Encode(args)
}

func gzipped(w http.ResponseWriter, r *http.Request) {
	compressed(w, r, "gzip", func(buf io.Writer) io.WriteCloser { return gzip.NewWriter(buf) })
}

// deflated uses the zlib format, which is what HTTP means by deflate.
func deflated(w http.ResponseWriter, r *http.Request) {
	compressed(w, r, "deflate", func(buf io.Writer) io.WriteCloser { return zlib.NewWriter(buf) })
}

// compressed sends the description of r in the given encoding, whatever the
// client accepts.
func compressed(w http.ResponseWriter, r *http.Request, encoding string, writer func(io.Writer) io.WriteCloser) {
	var buf bytes.Buffer
	zw := writer(&buf)
	// Writing into memory cannot fail.
	_ = json.NewEncoder(zw).Encode(struct {
		request
		Encoding string `json:"encoding"`
	}{describe(r), encoding})
	_ = zw.Close()
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Encoding", encoding)
	w.Header().Set("Content-Length", strconv.Itoa(buf.Len()))
	_, _ = buf.WriteTo(w)
}

// uuid makes a random UUID (RFC 9562 version 4).
func uuid(w http.ResponseWriter, _ *http.Request) {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	write(w, http.StatusOK, map[string]string{
		"uuid": fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]),
	})
}

// base64Decode decodes either alphabet, padded or not.
func base64Decode(w http.ResponseWriter, r *http.Request) {
	value := bytes.TrimRight([]byte(r.PathValue("value")), "=")
	data, err := base64.RawURLEncoding.DecodeString(string(value))
	if err != nil {
		data, err = base64.RawStdEncoding.DecodeString(string(value))
	}
	if err != nil {
		refuse(w, fmt.Errorf("decode base64: %w", err))
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(data)
}

func sampleJSON(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusOK, map[string]any{"slideshow": map[string]any{
		"title": "Sample Slide Show", "author": "Yours Truly", "date": "date of publication",
		"slides": []map[string]any{
			{"title": "What a mesh does", "type": "all"},
			{"title": "Overview", "type": "all", "items": []string{"identity", "routing", "telemetry"}},
		},
	}})
}

func sampleHTML(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = io.WriteString(w, `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>A page</title></head>
<body><h1>The ferry</h1><p>Between the two seas lay a strip of land so narrow that sailors dragged their ships across it.</p></body></html>
`)
}

func home(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = io.WriteString(w, `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark"><title>httpbin</title></head>
<body><h1>httpbin</h1><p>Answers with what it saw of your request, or with what you ask for.</p><ul>
<li>What you sent: <a href="/get">/get</a> /post /put /patch /delete <a href="/anything">/anything</a> <a href="/headers">/headers</a> <a href="/ip">/ip</a> <a href="/user-agent">/user-agent</a> <a href="/hostname">/hostname</a></li>
<li>Faults: /status/{codes} /delay/{seconds} /drip</li>
<li>Data: /bytes/{n} /stream/{n} /stream-bytes/{n} <a href="/gzip">/gzip</a> <a href="/deflate">/deflate</a> <a href="/uuid">/uuid</a> /base64/{value} <a href="/json">/json</a> <a href="/html">/html</a> <a href="/response-headers?x-sample=1">/response-headers</a></li>
<li>Redirects: /redirect/{n} /relative-redirect/{n} /absolute-redirect/{n} /redirect-to?url=</li>
<li>Credentials and cookies: /basic-auth/{user}/{password} <a href="/bearer">/bearer</a> <a href="/cookies">/cookies</a> /cookies/set?name=value /cookies/delete?name</li>
<li>WebSocket: /websocket/echo</li>
</ul></body></html>
`)
}
