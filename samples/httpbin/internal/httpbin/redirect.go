package httpbin

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// redirect leads through n redirects to /get.
func redirect(absolute bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n, err := number(r.PathValue("n"), maxRedirect)
		if err == nil && n == 0 {
			err = fmt.Errorf("want at least one redirect")
		}
		if err != nil {
			refuse(w, err)
			return
		}
		to, name := "/get", "/relative-redirect/"
		if absolute {
			name = "/absolute-redirect/"
		}
		if n > 1 {
			to = name + strconv.Itoa(n-1)
		}
		if absolute {
			base, err := url.Parse(address(r))
			if err != nil {
				refuse(w, fmt.Errorf("address of this request: %w", err))
				return
			}
			to = base.Scheme + "://" + base.Host + to
		}
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
	}
}

// redirectTo leads to ?url= with ?status_code= (302). Leading anywhere is what
// it is for.
func redirectTo(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	to := q.Get("url")
	if to == "" {
		refuse(w, fmt.Errorf("argument url is missing"))
		return
	}
	code := http.StatusFound
	if s := q.Get("status_code"); s != "" {
		var err error
		if code, err = number(s, 399); err != nil || code < 300 {
			refuse(w, fmt.Errorf("status_code %q: want a number from 300 to 399", s))
			return
		}
	}
	w.Header().Set("Location", to)
	w.WriteHeader(code)
}
