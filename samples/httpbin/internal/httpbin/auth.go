package httpbin

import (
	"crypto/subtle"
	"net/http"
	"strings"
)

// basicAuth lets in who sends the user and password that the path names.
func basicAuth(w http.ResponseWriter, r *http.Request) {
	user, password, given := r.BasicAuth()
	ok := given && equal(user, r.PathValue("user")) && equal(password, r.PathValue("password"))
	code := http.StatusOK
	if !ok {
		code = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", `Basic realm="Fake Realm"`)
	}
	write(w, code, map[string]any{"authenticated": ok, "authorized": ok, "user": user})
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// bearer lets in who sends any bearer token.
func bearer(w http.ResponseWriter, r *http.Request) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		w.Header().Set("WWW-Authenticate", "Bearer")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	write(w, http.StatusOK, map[string]any{"authenticated": true, "token": token})
}

func cookies(w http.ResponseWriter, r *http.Request) {
	all := map[string]string{}
	for _, c := range r.Cookies() {
		all[c.Name] = c.Value
	}
	write(w, http.StatusOK, map[string]any{"cookies": all})
}

// setCookies sets one cookie for each argument.
func setCookies(w http.ResponseWriter, r *http.Request) {
	for name, values := range r.URL.Query() {
		http.SetCookie(w, &http.Cookie{Name: name, Value: values[0], Path: "/", HttpOnly: true})
	}
	w.Header().Set("Location", "/cookies")
	w.WriteHeader(http.StatusFound)
}

// deleteCookies removes the cookies that the arguments name.
func deleteCookies(w http.ResponseWriter, r *http.Request) {
	for name := range r.URL.Query() {
		http.SetCookie(w, &http.Cookie{Name: name, Path: "/", HttpOnly: true, MaxAge: -1})
	}
	w.Header().Set("Location", "/cookies")
	w.WriteHeader(http.StatusFound)
}
