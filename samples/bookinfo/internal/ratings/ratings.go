// Package ratings is the ratings service of Bookinfo: stars for a book by
// reviewer, held in memory.
package ratings

import (
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/samples/internal/serve"
)

// maxBody bounds what one POST may store.
const maxBody = 64 << 10

// product is the answer for one book. Ratings is what was posted, unchanged.
type product struct {
	ID      int             `json:"id"`
	Ratings json.RawMessage `json:"ratings"`
}

// service holds the posted ratings.
type service struct {
	fault fault
	log   *slog.Logger

	mu    sync.Mutex
	added map[int]json.RawMessage // guarded by mu
}

// New returns the service's handler.
func New(cfg Config, log *slog.Logger) http.Handler {
	return newService(newFault(cfg.Version, time.Now, rand.Float64), log)
}

func newService(f fault, log *slog.Logger) http.Handler {
	s := &service{fault: f, log: log, added: make(map[int]json.RawMessage)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", s.health)
	mux.HandleFunc("GET /ratings/{id}", s.get)
	mux.HandleFunc("POST /ratings/{id}", s.post)
	return mux
}

func (s *service) health(w http.ResponseWriter, _ *http.Request) {
	if !s.fault.healthy() {
		serve.Health(w, http.StatusInternalServerError, "Ratings is not healthy")
		return
	}
	serve.Health(w, http.StatusOK, "Ratings is healthy")
}

func (s *service) get(w http.ResponseWriter, r *http.Request) {
	id, ok := productID(w, r)
	if !ok {
		return
	}
	if err := s.fault.inject(r.Context()); err != nil {
		s.log.Info("injected fault", "version", s.fault.version, "fault", err.Error())
		serve.Error(w, http.StatusServiceUnavailable, "Service unavailable")
		return
	}
	serve.JSON(w, http.StatusOK, s.lookup(id))
}

func (s *service) post(w http.ResponseWriter, r *http.Request) {
	id, ok := productID(w, r)
	if !ok {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil || !json.Valid(body) {
		serve.Error(w, http.StatusBadRequest, "please provide valid ratings JSON")
		return
	}
	s.mu.Lock()
	s.added[id] = body
	s.mu.Unlock()
	serve.JSON(w, http.StatusOK, s.lookup(id))
}

func (s *service) lookup(id int) product {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.added[id]; ok {
		return product{ID: id, Ratings: v}
	}
	return product{ID: id, Ratings: json.RawMessage(`{"Reviewer1":5,"Reviewer2":4}`)}
}

func productID(w http.ResponseWriter, r *http.Request) (int, bool) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil {
		serve.Error(w, http.StatusBadRequest, "please provide numeric product ID")
		return 0, false
	}
	return id, true
}
