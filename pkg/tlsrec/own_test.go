//go:build !ktls

package tlsrec

import (
	"context"
	"crypto/tls"
	"net"
)

// ownClient and ownServer are what most tests are about. With the build tag ktls the kernel seals what they send.
func ownClient(ctx context.Context, nc net.Conn, config *tls.Config) (Secured, error) {
	return Client(ctx, nc, config)
}

func ownServer(ctx context.Context, nc net.Conn, config *tls.Config) (Secured, error) {
	return Server(ctx, nc, config)
}
