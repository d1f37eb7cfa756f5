// Package productpage is the front of Bookinfo: the page that people see, its
// sign-in, and a JSON API, all composed from details, reviews and ratings.
package productpage

import (
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/isthmus-mesh/isthmus/samples/bookinfo/internal/peer"
	"github.com/isthmus-mesh/isthmus/samples/internal/serve"
)

// theBook is the one product of the shop.
const theBook = "0"

type service struct {
	sessions sessions
	backend  *backend
	pages    *pages
	log      *slog.Logger
}

// New returns the service's handler; t reaches the other services.
func New(cfg Config, t http.RoundTripper, log *slog.Logger) (http.Handler, error) {
	static, err := loadAssets()
	if err != nil {
		return nil, err
	}
	pages, err := loadPages(static.version)
	if err != nil {
		return nil, err
	}
	results := newResultCounter()
	s := &service{
		sessions: sessions{key: cfg.SessionKey},
		backend:  &backend{cfg: cfg, client: peer.NewClient(t), results: results, log: log},
		pages:    pages,
		log:      log,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.index)
	mux.HandleFunc("GET /index.html", s.index)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte("Product page is healthy"))
	})
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("GET /logout", s.logout)
	mux.HandleFunc("GET /productpage", s.page)
	mux.HandleFunc("GET /api/v1/products", func(w http.ResponseWriter, _ *http.Request) {
		serve.JSON(w, http.StatusOK, products())
	})
	mux.HandleFunc("GET /api/v1/products/{id}", s.api(s.backend.details))
	mux.HandleFunc("GET /api/v1/products/{id}/reviews", s.api(s.backend.reviews))
	mux.HandleFunc("GET /api/v1/products/{id}/ratings", s.api(s.backend.ratings))
	mux.Handle("GET /metrics", results)
	mux.Handle("GET /static/", static)
	return mux, nil
}

// forward returns the headers for calls made on behalf of r.
func (s *service) forward(r *http.Request) http.Header {
	h := peer.Propagate(r.Header)
	if user := s.sessions.user(r); user != "" {
		h.Set(peer.EndUser, user)
	}
	return h
}

// login signs anyone in who gives a name; the password is not looked at.
func (s *service) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	name := strings.TrimSpace(r.FormValue("username"))
	if err := checkUserName(name); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.sessions.signIn(w, r, name)
	http.Redirect(w, r, returnTo(r), http.StatusFound)
}

func (s *service) logout(w http.ResponseWriter, r *http.Request) {
	s.sessions.signOut(w, r)
	http.Redirect(w, r, returnTo(r), http.StatusFound)
}

// returnTo is the page of ours the request came from, /productpage where it
// came from elsewhere: a Referer must not send people to other sites.
func returnTo(r *http.Request) string {
	ref, err := url.Parse(r.Referer())
	if err != nil || ref.Host != r.Host || ref.Path == "" {
		return "/productpage"
	}
	// "//host/…" would be another site.
	local := url.URL{Path: "/" + strings.TrimLeft(ref.Path, `/\`), RawQuery: ref.RawQuery}
	return local.String()
}
