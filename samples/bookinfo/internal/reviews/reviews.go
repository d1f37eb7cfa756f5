// Package reviews is the reviews service of Bookinfo: two reviews of a book,
// and, by version, the stars that the ratings service has for them.
package reviews

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/isthmus-mesh/isthmus/samples/bookinfo/internal/peer"
	"github.com/isthmus-mesh/isthmus/samples/internal/serve"
)

// answer is what /reviews/{id} yields.
type answer struct {
	ID          string   `json:"id"`
	PodName     string   `json:"podname"`
	ClusterName string   `json:"clustername"`
	Reviews     []review `json:"reviews"`
}

type review struct {
	Reviewer string  `json:"reviewer"`
	Text     string  `json:"text"`
	Rating   *rating `json:"rating,omitempty"` // nil where the version has no ratings
}

// rating holds either stars and their colour, or an error.
type rating struct {
	Stars *int   `json:"stars,omitempty"` // a pointer, for 0 stars is a rating
	Color string `json:"color,omitempty"`
	Error string `json:"error,omitempty"`
}

type service struct {
	cfg    Config
	client *peer.Client
	log    *slog.Logger
}

// New returns the service's handler; t reaches the ratings service.
func New(cfg Config, t http.RoundTripper, log *slog.Logger) http.Handler {
	s := &service{cfg: cfg, client: peer.NewClient(t), log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		serve.Health(w, http.StatusOK, "Reviews is healthy")
	})
	mux.HandleFunc("GET /reviews/{id}", s.get)
	return mux
}

func (s *service) get(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 32)
	if err != nil {
		serve.Error(w, http.StatusNotFound, "please provide numeric product ID")
		return
	}
	product := strconv.FormatInt(id, 10)
	var stars map[string]int
	if s.cfg.Ratings {
		stars = s.stars(r, product)
	}
	serve.JSON(w, http.StatusOK, answer{
		ID: product, PodName: s.cfg.PodName, ClusterName: s.cfg.ClusterName,
		Reviews: []review{
			s.review("Reviewer1", "Two pairs of twins, one city and not a dull minute. The quickest and silliest evening Shakespeare ever wrote!", stars),
			s.review("Reviewer2", "Great fun from the first mix-up to the last, though do not look for the depth of his later plays.", stars),
		},
	})
}

func (s *service) review(reviewer, text string, stars map[string]int) review {
	rv := review{Reviewer: reviewer, Text: text}
	if !s.cfg.Ratings {
		return rv
	}
	if n, ok := stars[reviewer]; ok && n >= 0 {
		rv.Rating = &rating{Stars: &n, Color: s.cfg.StarColor}
	} else {
		rv.Rating = &rating{Error: "Ratings service is currently unavailable"}
	}
	return rv
}

// stars asks the ratings service; nil where it cannot be had. Failing here must
// not fail the reviews.
func (s *service) stars(r *http.Request, product string) map[string]int {
	url := s.cfg.RatingsURL + "/ratings/" + product
	header := peer.PropagateEndUser(r.Header)
	header.Set("Accept", "application/json")
	status, body, err := s.client.Get(r.Context(), url, header, s.cfg.RatingsTimeout())
	if err != nil {
		s.log.Warn("no ratings", "error", err)
		return nil
	}
	if status != http.StatusOK {
		s.log.Warn("no ratings", "url", url, "status", status)
		return nil
	}
	var got struct {
		Ratings map[string]int `json:"ratings"`
	}
	if err := json.Unmarshal(body, &got); err != nil {
		s.log.Warn("no ratings: unexpected answer", "url", url, "error", err)
		return nil
	}
	return got.Ratings
}
