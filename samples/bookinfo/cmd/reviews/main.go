// Command reviews serves the reviews of a book. Usage: reviews [port].
package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/isthmus-mesh/isthmus/samples/bookinfo/internal/peer"
	"github.com/isthmus-mesh/isthmus/samples/bookinfo/internal/reviews"
	"github.com/isthmus-mesh/isthmus/samples/internal/serve"
)

func main() {
	os.Exit(serve.Main(serve.Program{
		Name:        "reviews",
		DefaultPort: "9080",
		Handler: func(log *slog.Logger) (http.Handler, error) {
			hostname, err := os.Hostname()
			if err != nil {
				return nil, fmt.Errorf("read host name: %w", err)
			}
			cfg, err := reviews.LoadConfig(os.LookupEnv, hostname)
			if err != nil {
				return nil, err
			}
			log.Info("starting", "ratings", cfg.Ratings, "stars", cfg.StarColor, "ratings_url", cfg.RatingsURL)
			return reviews.New(cfg, peer.Transport(), log), nil
		},
	}, os.Args[1:], os.Stdout, os.Stderr))
}
