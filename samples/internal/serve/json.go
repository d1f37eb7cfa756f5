package serve

import (
	"encoding/json"
	"net/http"
)

// JSON answers with v as one JSON document. v is always a value of ours that
// can be encoded; an error therefore means that the client has gone, and there
// is nobody left to tell.
func JSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
}

// Error answers with {"error": message}, the shape all Bookinfo services use.
func Error(w http.ResponseWriter, status int, message string) {
	JSON(w, status, map[string]string{"error": message})
}

// Health answers with {"status": message}.
func Health(w http.ResponseWriter, status int, message string) {
	JSON(w, status, map[string]string{"status": message})
}
