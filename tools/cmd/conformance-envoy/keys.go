package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// keysPort is where the token issuer serves its keys.
const keysPort = "8090"

// serveKeys plays a token issuer: its keys, and its OpenID configuration.
func (b *testbed) serveKeys(ctx context.Context) error {
	keys, err := os.ReadFile(filepath.Join(b.dir, "ca", "jwks.json"))
	if err != nil {
		return err
	}
	at := net.JoinHostPort(hub().String(), keysPort)
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at)
	if err != nil {
		return fmt.Errorf("serve keys: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { w.Write(keys) })
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer":"http://%s","jwks_uri":"http://%s/keys"}`, at, at)
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go server.Serve(l)
	return nil
}
