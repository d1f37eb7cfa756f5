package productpage

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	sessionCookie = "session"
	maxUserName   = 64 // bytes
)

// sessions keeps the name of the person that is signed in, in a cookie:
// base64(name) "." base64(HMAC-SHA256(name)).
type sessions struct {
	key []byte
}

// user returns who is signed in, "" for nobody or for a cookie not ours.
func (s sessions) user(r *http.Request) string {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return ""
	}
	name64, mac64, ok := strings.Cut(c.Value, ".")
	if !ok {
		return ""
	}
	name, err := base64.RawURLEncoding.DecodeString(name64)
	if err != nil {
		return ""
	}
	mac, err := base64.RawURLEncoding.DecodeString(mac64)
	if err != nil || !hmac.Equal(mac, s.sign(name)) {
		return ""
	}
	return string(name)
}

func (s sessions) signIn(w http.ResponseWriter, r *http.Request, name string) {
	value := base64.RawURLEncoding.EncodeToString([]byte(name)) + "." +
		base64.RawURLEncoding.EncodeToString(s.sign([]byte(name)))
	http.SetCookie(w, s.cookie(r, value, 0))
}

func (s sessions) signOut(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, s.cookie(r, "", -1))
}

func (sessions) cookie(r *http.Request, value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: sessionCookie, Value: value, Path: "/", MaxAge: maxAge,
		HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https",
	}
}

func (s sessions) sign(name []byte) []byte {
	h := hmac.New(sha256.New, s.key)
	h.Write(name)
	return h.Sum(nil)
}

// checkUserName accepts what can travel in the end-user header.
func checkUserName(name string) error {
	switch {
	case name == "":
		return errors.New("please provide a user name")
	case len(name) > maxUserName:
		return errors.New("please provide a shorter user name")
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("please provide a user name without control characters")
	}
	return nil
}
