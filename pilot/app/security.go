package app

import (
	"context"
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/pilot/internal/ca"
	"github.com/isthmus-mesh/isthmus/pilot/internal/debug"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// guard decides who may ask for what.
type guard struct {
	systemNamespace string
	debug           *debug.Server
	callers         ca.Authenticator
}

func newSecurity(cfg Config, callers ca.Authenticator) *guard {
	return &guard{systemNamespace: cfg.Namespace, callers: callers}
}

// authenticate lets through what comes over the plaintext port, which is not for the outside, and asks for credentials on the
// other one.
func (s *guard) authenticate(ctx context.Context) (server.Peer, error) {
	p, _ := peer.FromContext(ctx)
	if p == nil {
		return server.Peer{}, status.Error(codes.Unauthenticated, "no peer")
	}
	if _, secure := p.AuthInfo.(credentials.TLSInfo); !secure {
		return server.Peer{}, nil
	}
	return s.caller(ctx)
}

func (s *guard) caller(ctx context.Context) (server.Peer, error) {
	caller, err := s.callers.Authenticate(ctx)
	if err != nil {
		return server.Peer{}, status.Errorf(codes.Unauthenticated, "request authenticate failure: %v", err)
	}
	return server.Peer{Namespace: caller.Namespace, ServiceAccount: caller.ServiceAccount, ClusterID: caller.ClusterID}, nil
}

// protect guards debug pages: everything on this machine may ask, others need a token of the system namespace.
func (s *guard) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
			next.ServeHTTP(w, r)
			return
		}
		ctx := metadata.NewIncomingContext(r.Context(), metadata.Pairs("authorization", r.Header.Get("Authorization")))
		caller, err := s.caller(ctx)
		switch {
		case !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") || err != nil:
			http.Error(w, "debug endpoints need a token, or a connection from this machine", http.StatusUnauthorized)
		case caller.Namespace != s.systemNamespace:
			http.Error(w, "debug endpoints are for the system namespace only", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// mayDebug guards debug pages that are asked for by xDS, as protect does those by HTTP.
func (s *guard) mayDebug(ctx context.Context, caller server.Peer) error {
	p, _ := peer.FromContext(ctx)
	if p == nil {
		return status.Error(codes.Unauthenticated, "no peer")
	}
	if _, secure := p.AuthInfo.(credentials.TLSInfo); secure {
		if caller.Namespace != s.systemNamespace {
			return status.Errorf(codes.PermissionDenied, "debug pages are for the system namespace %q only, and the credentials are of %q", s.systemNamespace, caller.Namespace)
		}
		return nil
	}
	if from, ok := p.Addr.(*net.TCPAddr); ok && from.IP.IsLoopback() {
		return nil
	}
	return status.Error(codes.Unauthenticated, "debug pages need credentials, on the port with TLS, or a connection from this machine")
}
