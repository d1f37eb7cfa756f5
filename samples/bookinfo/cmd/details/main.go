// Command details serves the facts of a book. Usage: details [port].
package main

import (
	"log/slog"
	"net/http"
	"os"

	"github.com/isthmus-mesh/isthmus/samples/bookinfo/internal/details"
	"github.com/isthmus-mesh/isthmus/samples/internal/serve"
)

func main() {
	os.Exit(serve.Main(serve.Program{
		Name:        "details",
		DefaultPort: "9080",
		Handler: func(log *slog.Logger) (http.Handler, error) {
			cfg := details.LoadConfig(os.LookupEnv)
			log.Info("starting", "external_book_service", cfg.External, "plaintext", cfg.Plaintext)
			// The catalogue is outside the mesh: a proxy from the environment applies.
			return details.New(cfg, http.DefaultTransport, log), nil
		},
	}, os.Args[1:], os.Stdout, os.Stderr))
}
