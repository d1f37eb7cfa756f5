package serve

import (
	"log/slog"
	"net/http"
	"time"
)

// AccessLog writes one line per request when it ends. Health checks are left
// out, for they would hide everything else.
func AccessLog(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			next.ServeHTTP(w, r)
			return
		}
		start := time.Now()
		sw := &statusWriter{ResponseWriter: w}
		defer func() {
			log.Info("request",
				"method", r.Method, "host", r.Host, "path", r.URL.Path, "status", sw.code(),
				"duration", time.Since(start).Round(time.Microsecond),
				"remote", r.RemoteAddr, "request_id", r.Header.Get("X-Request-Id"),
				// Which try of a proxy's this was; empty without one.
				"attempt", r.Header.Get("X-Envoy-Attempt-Count"))
		}()
		next.ServeHTTP(sw, r)
	})
}

// statusWriter remembers the status that was sent. Unwrap keeps flushing and
// hijacking reachable by http.ResponseController.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) WriteHeader(code int) {
	if w.status == 0 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

func (w *statusWriter) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}
