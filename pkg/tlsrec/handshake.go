package tlsrec

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
)

// Secured is a connection whose TLS handshake is done: a [*Conn] or a *tls.Conn.
type Secured interface {
	net.Conn
	CloseWrite() error
	ConnectionState() tls.ConnectionState
	NetConn() net.Conn
}

// Client shakes hands as a client and returns the connection. It closes nc on failure only if ctx ended. The config's
// KeyLogWriter is not used.
func Client(ctx context.Context, nc net.Conn, config *tls.Config) (Secured, error) {
	return shake(ctx, nc, config, true)
}

// Server is Client for the other end. It issues no session tickets.
func Server(ctx context.Context, nc net.Conn, config *tls.Config) (Secured, error) {
	return shake(ctx, nc, config, false)
}

func shake(ctx context.Context, nc net.Conn, config *tls.Config, client bool) (Secured, error) {
	log := &keyLog{}
	defer log.erase()
	under := &tap{Conn: direct(nc)}
	var shaking *tls.Conn
	if client {
		shaking = tls.Client(under, listening(config, log))
	} else {
		shaking = tls.Server(under, listening(config, log))
	}
	if err := shaking.HandshakeContext(ctx); err != nil {
		under.release()
		return nil, err
	}
	state := shaking.ConnectionState()
	s := suiteOf(state.CipherSuite)
	if state.Version != tls.VersionTLS13 || s == nil || log.client == nil || log.server == nil {
		under.open = true
		return shaking, nil
	}
	in, out := log.server, log.client
	if !client {
		in, out = out, in
	}
	log.client, log.server = nil, nil // the connection owns them now
	inbound, err := newKeys(s, in, 0)
	if err != nil {
		return nil, fmt.Errorf("take over from the handshake: %w", err)
	}
	outbound, err := newKeys(s, out, 0)
	if err != nil {
		return nil, fmt.Errorf("take over from the handshake: %w", err)
	}
	c := newConn(nc, client, publicPart(state), inbound, outbound)
	c.rx.buf, c.rx.r, c.rx.w = under.rest()
	return c, nil
}

// listening is config for one handshake whose secrets go to log. No tickets are issued: crypto/tls would send them as the first
// records under the traffic keys.
func listening(config *tls.Config, log *keyLog) *tls.Config {
	own := config.Clone()
	own.KeyLogWriter, own.SessionTicketsDisabled = log, true
	if choose := own.GetConfigForClient; choose != nil {
		own.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			if err != nil || chosen == nil {
				return nil, err
			}
			chosen = chosen.Clone()
			chosen.KeyLogWriter, chosen.SessionTicketsDisabled = log, true
			return chosen, nil
		}
	}
	return own
}

// publicPart is what of a state is kept: not the exporter, which holds a secret.
func publicPart(s tls.ConnectionState) tls.ConnectionState {
	return tls.ConnectionState{
		Version: s.Version, HandshakeComplete: s.HandshakeComplete, CipherSuite: s.CipherSuite, CurveID: s.CurveID,
		NegotiatedProtocol: s.NegotiatedProtocol, ServerName: s.ServerName,
		PeerCertificates: s.PeerCertificates, VerifiedChains: s.VerifiedChains,
	}
}
