// Package httpbin is a request inspector: answers show what arrived, and paths
// ask for a status, a delay, a size. Multi-valued things (headers, arguments)
// are lists, as in go-httpbin, so that repeated headers stay visible.
package httpbin

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Limits keep one request from occupying the server.
const (
	maxBody     = 1 << 20
	maxBytes    = 100 << 10
	maxLines    = 100
	maxRedirect = 20
	maxDelay    = 10 * time.Second
)

// New returns the handler. hostname is what /hostname tells.
func New(hostname string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", home)
	mux.HandleFunc("GET /get", inspectRequest)
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
		mux.HandleFunc(method+" /"+lower(method), inspectBody)
	}
	mux.HandleFunc("/anything", inspectBody)
	mux.HandleFunc("/anything/", inspectBody)
	mux.HandleFunc("GET /headers", headers)
	mux.HandleFunc("GET /ip", ip)
	mux.HandleFunc("GET /user-agent", userAgent)
	mux.HandleFunc("GET /hostname", func(w http.ResponseWriter, _ *http.Request) {
		write(w, http.StatusOK, map[string]string{"hostname": hostname})
	})

	mux.HandleFunc("/status/{codes}", status)
	mux.HandleFunc("/delay/{seconds}", delay)
	mux.HandleFunc("GET /bytes/{n}", randomBytes)
	mux.HandleFunc("GET /stream/{n}", stream)
	mux.HandleFunc("GET /stream-bytes/{n}", streamBytes)
	mux.HandleFunc("GET /drip", drip)

	mux.HandleFunc("GET /redirect/{n}", redirect(false))
	mux.HandleFunc("GET /relative-redirect/{n}", redirect(false))
	mux.HandleFunc("GET /absolute-redirect/{n}", redirect(true))
	mux.HandleFunc("/redirect-to", redirectTo)

	mux.HandleFunc("GET /basic-auth/{user}/{password}", basicAuth)
	mux.HandleFunc("GET /bearer", bearer)
	mux.HandleFunc("GET /cookies", cookies)
	mux.HandleFunc("GET /cookies/set", setCookies)
	mux.HandleFunc("GET /cookies/delete", deleteCookies)

	mux.HandleFunc("GET /response-headers", responseHeaders)
	mux.HandleFunc("GET /gzip", gzipped)
	mux.HandleFunc("GET /deflate", deflated)
	mux.HandleFunc("GET /uuid", uuid)
	mux.HandleFunc("GET /base64/{value}", base64Decode)
	mux.HandleFunc("GET /json", sampleJSON)
	mux.HandleFunc("GET /html", sampleHTML)
	mux.HandleFunc("GET /websocket/echo", websocketEcho)
	return mux
}

// number reads a path or query value within [0, limit].
func number(value string, limit int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 || n > limit {
		return 0, fmt.Errorf("%q: want a number from 0 to %d", value, limit)
	}
	return n, nil
}

// seconds reads a time in seconds, whole or not, or as Go writes it ("1.5s").
func seconds(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if f, ferr := strconv.ParseFloat(value, 64); ferr == nil {
		// Compared before converting: a huge float has no duration.
		if f > maxDelay.Seconds() {
			f = maxDelay.Seconds()
		}
		d, err = time.Duration(f*float64(time.Second)), nil
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q: want a number of seconds", value)
	}
	return min(d, maxDelay), nil
}

// pause waits for d; false means that the client has gone.
func pause(r *http.Request, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
		return false
	}
}
