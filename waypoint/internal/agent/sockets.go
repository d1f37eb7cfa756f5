package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/controlplane"
)

// Sockets are the two Unix sockets that the engine talks to.
type Sockets struct {
	// XDS and SDS are their paths.
	XDS, SDS string

	servers []*grpc.Server
	done    sync.WaitGroup
}

// OpenSockets serves discovery and certificates in dir, for the user that runs the proxy only. Close ends it.
func OpenSockets(ctx context.Context, dir string, upstream controlplane.Upstream, get func(context.Context) (*certs.Workload, error), log *slog.Logger) (*Sockets, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory for the engine: %w", err)
	}
	// It may have been there, and wider.
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory for the engine: %w", err)
	}
	s := &Sockets{XDS: filepath.Join(dir, "XDS"), SDS: filepath.Join(dir, "SDS")}
	discovery := &forwarder{upstream: upstream, log: log}
	secrets := grpc.NewServer()
	secretv3.RegisterSecretDiscoveryServiceServer(secrets, &Secrets{Get: get, Log: log})
	for path, server := range map[string]*grpc.Server{
		s.SDS: secrets,
		s.XDS: grpc.NewServer(grpc.UnknownServiceHandler(discovery.handle), grpc.ForceServerCodecV2(raw{}), grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage)),
	} {
		listener, err := listenUnix(ctx, path)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.servers = append(s.servers, server)
		s.done.Go(func() {
			if err := server.Serve(listener); err != nil {
				log.Error("socket for the engine", "path", path, "error", err)
			}
		})
	}
	return s, nil
}

// listenUnix replaces what a former process left.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("socket for the engine: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket for the engine: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("socket for the engine: %w", err)
	}
	return listener, nil
}

// Close ends both servers and what they serve.
func (s *Sockets) Close() {
	for _, server := range s.servers {
		server.Stop()
	}
	s.done.Wait()
}
