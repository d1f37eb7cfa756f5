package productpage

import (
	"context"
	"net/http"
)

// product is one entry of the catalogue, as /api/v1/products lists it.
type product struct {
	ID              int    `json:"id"`
	Title           string `json:"title"`
	DescriptionHTML string `json:"descriptionHtml"` // trusted: written here
}

func products() []product {
	return []product{{
		ID:    0,
		Title: "The Comedy of Errors",
		DescriptionHTML: `<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">Wikipedia Summary</a>: ` +
			`two pairs of identical twins, parted by a shipwreck, wander through the same city on the same day. ` +
			`Wives, merchants and servants take each for the other, and nobody is sane by noon. ` +
			`<b>William Shakespeare</b> was young when he wrote it, and never wrote a shorter play or a broader farce.`,
	}}
}

// api answers with what fetch yields for the product in the path.
func (s *service) api(fetch func(context.Context, string, http.Header) result) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		res := fetch(r.Context(), r.PathValue("id"), s.forward(r))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(res.Status)
		_, _ = w.Write(res.Body)
	}
}
