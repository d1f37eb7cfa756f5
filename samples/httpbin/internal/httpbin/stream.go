package httpbin

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// source yields random bytes, the same ones for the same ?seed=.
func source(r *http.Request) (*rand.ChaCha8, error) {
	seed := rand.Uint64()
	if s := r.URL.Query().Get("seed"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("seed %q: want a whole number", s)
		}
		seed = uint64(n)
	}
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return rand.NewChaCha8(key), nil
}

// randomBytes sends n bytes with a Content-Length.
func randomBytes(w http.ResponseWriter, r *http.Request) {
	n, err := number(r.PathValue("n"), maxBytes)
	if err != nil {
		refuse(w, err)
		return
	}
	src, err := source(r)
	if err != nil {
		refuse(w, err)
		return
	}
	data := make([]byte, n)
	_, _ = src.Read(data) // never fails
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(n))
	_, _ = w.Write(data)
}

// streamBytes sends n bytes in chunks of ?chunk_size= (10 KiB).
func streamBytes(w http.ResponseWriter, r *http.Request) {
	n, err := number(r.PathValue("n"), maxBytes)
	if err != nil {
		refuse(w, err)
		return
	}
	src, err := source(r)
	if err != nil {
		refuse(w, err)
		return
	}
	chunk := 10 << 10
	if s := r.URL.Query().Get("chunk_size"); s != "" {
		if chunk, err = number(s, maxBytes); err != nil || chunk == 0 {
			refuse(w, fmt.Errorf("chunk_size %q: want a number from 1 to %d", s, maxBytes))
			return
		}
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	rc := http.NewResponseController(w)
	buf := make([]byte, chunk)
	for n > 0 {
		part := buf[:min(chunk, n)]
		_, _ = src.Read(part)
		if _, err := w.Write(part); err != nil {
			return
		}
		if err := rc.Flush(); err != nil {
			return
		}
		n -= len(part)
	}
}

// stream sends n lines of JSON, each flushed.
func stream(w http.ResponseWriter, r *http.Request) {
	n, err := number(r.PathValue("n"), maxLines)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	rc := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	for i := range n {
		line := struct {
			ID int `json:"id"`
			request
		}{i, describe(r)}
		if enc.Encode(line) != nil || rc.Flush() != nil {
			return
		}
	}
}

// dripping is how /drip is to send.
type dripping struct {
	delay, duration time.Duration
	bytes, code     int
}

func parseDrip(r *http.Request) (dripping, error) {
	d := dripping{duration: 2 * time.Second, bytes: 10, code: http.StatusOK}
	q := r.URL.Query()
	var err error
	if s := q.Get("delay"); s != "" {
		if d.delay, err = seconds(s); err != nil {
			return d, fmt.Errorf("delay %w", err)
		}
	}
	if s := q.Get("duration"); s != "" {
		if d.duration, err = seconds(s); err != nil {
			return d, fmt.Errorf("duration %w", err)
		}
	}
	if s := q.Get("numbytes"); s != "" {
		if d.bytes, err = number(s, maxBytes); err != nil {
			return d, fmt.Errorf("numbytes %w", err)
		}
	}
	if s := q.Get("code"); s != "" {
		if d.code, err = number(s, 599); err != nil || d.code < 200 {
			return d, fmt.Errorf("code %q: want a number from 200 to 599", s)
		}
	}
	return d, nil
}

// drip sends ?numbytes= bytes one at a time over ?duration=, after ?delay=,
// with status ?code=.
func drip(w http.ResponseWriter, r *http.Request) {
	d, err := parseDrip(r)
	if err != nil {
		refuse(w, err)
		return
	}
	if !pause(r, d.delay) {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(d.bytes))
	w.WriteHeader(d.code)
	rc := http.NewResponseController(w)
	gap := d.duration / time.Duration(max(d.bytes-1, 1))
	for i := range d.bytes {
		if i > 0 && !pause(r, gap) {
			return
		}
		if _, err := w.Write([]byte{'*'}); err != nil {
			return
		}
		if err := rc.Flush(); err != nil {
			return
		}
	}
}
