// Package details is the details service of Bookinfo: the bibliographic facts
// of a book, built in or fetched from a public book catalogue.
package details

import (
	"log/slog"
	"net/http"
	"strconv"

	"github.com/isthmus-mesh/isthmus/samples/bookinfo/internal/peer"
	"github.com/isthmus-mesh/isthmus/samples/internal/serve"
)

// book is the answer for one book.
type book struct {
	ID        int    `json:"id"`
	Author    string `json:"author"`
	Year      any    `json:"year"` // a number; the catalogue's publication date, a string, in v2
	Type      string `json:"type"`
	Pages     int    `json:"pages"`
	Publisher string `json:"publisher"`
	Language  string `json:"language"`
	ISBN10    string `json:"ISBN-10"`
	ISBN13    string `json:"ISBN-13"`
}

type service struct {
	catalogue *catalogue // nil unless the external service is enabled
	log       *slog.Logger
}

// New returns the service's handler. t reaches the external catalogue and is
// used only where cfg enables that.
func New(cfg Config, t http.RoundTripper, log *slog.Logger) http.Handler {
	s := &service{log: log}
	if cfg.External {
		s.catalogue = newCatalogue(cfg.Plaintext, t)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		serve.Health(w, http.StatusOK, "Details is healthy")
	})
	mux.HandleFunc("GET /details/{id}", s.get)
	return mux
}

func (s *service) get(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil {
		serve.Error(w, http.StatusBadRequest, "please provide numeric product id")
		return
	}
	if s.catalogue == nil {
		serve.JSON(w, http.StatusOK, builtin(id))
		return
	}
	b, err := s.catalogue.fetch(r.Context(), id, peer.Propagate(r.Header))
	if err != nil {
		s.log.Warn("external book service", "error", err)
		serve.Error(w, http.StatusBadGateway, err.Error())
		return
	}
	serve.JSON(w, http.StatusOK, b)
}

// builtin answers for every id: the sample sells one book.
func builtin(id int) book {
	return book{
		ID: id, Author: "William Shakespeare", Year: 1595, Type: "paperback", Pages: 200,
		Publisher: "PublisherA", Language: "English", ISBN10: "1234567890", ISBN13: "123-1234567890",
	}
}
