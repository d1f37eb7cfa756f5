package productpage

import (
	"html/template"
	"net/http"
	"sync"
)

// index explains what runs here and leads to the shop.
func (s *service) index(w http.ResponseWriter, r *http.Request) {
	cfg := s.backend.cfg
	s.render(w, s.pages.index, view{User: s.sessions.user(r), Index: &indexView{Services: []serviceRow{
		{"productpage", "this service", "details, reviews"},
		{"details", cfg.DetailsURL, ""},
		{"reviews", cfg.ReviewsURL, "ratings"},
		{"ratings", cfg.RatingsURL, ""},
	}}})
}

// page shows the book. It is 200 even where a part of it failed; the part says so.
func (s *service) page(w http.ResponseWriter, r *http.Request) {
	header := s.forward(r)
	var details, reviews result
	var wg sync.WaitGroup
	ctx := r.Context()
	wg.Go(func() { details = s.backend.details(ctx, theBook, header) })
	s.backend.flood(ctx, theBook, header)
	reviews = s.backend.reviews(ctx, theBook, header)
	wg.Wait()

	book := products()[0]
	s.render(w, s.pages.product, view{User: s.sessions.user(r), Product: &productView{
		Title:       book.Title,
		Description: template.HTML(book.DescriptionHTML), //nolint:gosec // our own constant
		Details:     viewDetails(details),
		Reviews:     viewReviews(reviews),
	}})
}
