// Command ratings serves the ratings of a book. Usage: ratings [port].
package main

import (
	"log/slog"
	"net/http"
	"os"

	"github.com/isthmus-mesh/isthmus/samples/bookinfo/internal/ratings"
	"github.com/isthmus-mesh/isthmus/samples/internal/serve"
)

func main() {
	os.Exit(serve.Main(serve.Program{
		Name:        "ratings",
		DefaultPort: "9080",
		Handler: func(log *slog.Logger) (http.Handler, error) {
			cfg, err := ratings.LoadConfig(os.LookupEnv)
			if err != nil {
				return nil, err
			}
			log.Info("starting", "version", cfg.Version)
			return ratings.New(cfg, log), nil
		},
	}, os.Args[1:], os.Stdout, os.Stderr))
}
