// Command httpbin answers HTTP requests with what it saw of them, and on demand
// with any status, delay, size or stream. Usage: httpbin [port].
package main

import (
	"log/slog"
	"net/http"
	"os"

	"github.com/isthmus-mesh/isthmus/samples/httpbin/internal/httpbin"
	"github.com/isthmus-mesh/isthmus/samples/internal/serve"
)

func main() {
	os.Exit(serve.Main(serve.Program{
		Name:        "httpbin",
		DefaultPort: "8080",
		Handler: func(*slog.Logger) (http.Handler, error) {
			hostname, err := os.Hostname()
			if err != nil {
				return nil, err
			}
			return httpbin.New(hostname), nil
		},
	}, os.Args[1:], os.Stdout, os.Stderr))
}
