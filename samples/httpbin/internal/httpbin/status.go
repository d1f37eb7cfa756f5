package httpbin

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
)

// weighted is one choice of /status/200:3,503:1.
type weighted struct {
	code   int
	weight float64
}

// status answers with the code in the path, or one of several at random, by
// weight where weights are given.
func status(w http.ResponseWriter, r *http.Request) {
	choices, err := parseCodes(r.PathValue("codes"))
	if err != nil {
		refuse(w, err)
		return
	}
	code := choose(choices, rand.Float64())
	switch {
	case code == http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Basic realm="Fake Realm"`)
	case code == http.StatusNotModified:
	case code >= 301 && code <= 308:
		w.Header().Set("Location", "/redirect/1")
	case code == http.StatusTeapot:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(code)
		fmt.Fprintln(w, "I'm a teapot!")
		return
	}
	w.WriteHeader(code)
}

func parseCodes(list string) ([]weighted, error) {
	var choices []weighted
	for item := range strings.SplitSeq(list, ",") {
		code, weight, given := strings.Cut(item, ":")
		c := weighted{weight: 1}
		var err error
		if c.code, err = strconv.Atoi(code); err != nil || c.code < 200 || c.code > 999 {
			return nil, fmt.Errorf("status %q: want a number from 200 to 999", code)
		}
		if given {
			if c.weight, err = strconv.ParseFloat(weight, 64); err != nil || !(c.weight >= 0 && c.weight < 1e9) {
				return nil, fmt.Errorf("weight %q of status %s: want a number that is not negative", weight, code)
			}
		}
		choices = append(choices, c)
	}
	return choices, nil
}

// choose picks by weight; at is in [0,1).
func choose(choices []weighted, at float64) int {
	var total float64
	for _, c := range choices {
		total += c.weight
	}
	at *= total
	for _, c := range choices {
		if at < c.weight {
			return c.code
		}
		at -= c.weight
	}
	return choices[len(choices)-1].code
}

// delay answers as /anything does, later.
func delay(w http.ResponseWriter, r *http.Request) {
	d, err := seconds(r.PathValue("seconds"))
	if err != nil {
		refuse(w, err)
		return
	}
	// The body first: only once it is read does the server notice that the
	// client has gone.
	b, err := readBody(w, r)
	if err != nil {
		refuse(w, err)
		return
	}
	if pause(r, d) {
		write(w, http.StatusOK, b)
	}
}
