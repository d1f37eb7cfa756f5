// Command productpage serves the Bookinfo shop: the page in the browser and its
// JSON API. Usage: productpage [port].
package main

import (
	"log/slog"
	"net/http"
	"os"

	"github.com/isthmus-mesh/isthmus/samples/bookinfo/internal/peer"
	"github.com/isthmus-mesh/isthmus/samples/bookinfo/internal/productpage"
	"github.com/isthmus-mesh/isthmus/samples/internal/serve"
)

func main() {
	os.Exit(serve.Main(serve.Program{
		Name:        "productpage",
		DefaultPort: "9080",
		Handler: func(log *slog.Logger) (http.Handler, error) {
			cfg, err := productpage.LoadConfig(os.LookupEnv)
			if err != nil {
				return nil, err
			}
			log.Info("starting", "details", cfg.DetailsURL, "reviews", cfg.ReviewsURL,
				"ratings", cfg.RatingsURL, "flood_factor", cfg.FloodFactor)
			return productpage.New(cfg, peer.Transport(), log)
		},
	}, os.Args[1:], os.Stdout, os.Stderr))
}
