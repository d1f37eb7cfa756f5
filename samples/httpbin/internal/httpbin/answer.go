package httpbin

import (
	"encoding/json"
	"net/http"
	"strings"
)

func lower(s string) string { return strings.ToLower(s) }

// write answers with v, indented for the eyes of someone with curl.
func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	// An error means that the client has gone.
	_ = enc.Encode(v)
}

// refuse answers 400 and says what was wrong with the request.
func refuse(w http.ResponseWriter, err error) {
	write(w, http.StatusBadRequest, map[string]any{"status_code": http.StatusBadRequest, "error": "Bad Request", "detail": err.Error()})
}
