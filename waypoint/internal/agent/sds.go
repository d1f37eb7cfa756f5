package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
)

// SecretType is the type of the resources.
const SecretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// lookAgain is how often a stream looks for a renewed certificate.
const lookAgain = time.Second

// Secrets serves the proxy's certificate and roots by SDS, both by state of the world and incrementally, and again whenever they
// are renewed.
type Secrets struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer

	// Get returns the certificate in force; it waits for the first one.
	Get func(ctx context.Context) (*certs.Workload, error)
	Log *slog.Logger
}

// secret is one to send.
type secret struct {
	name, version string
	content       *anypb.Any
}

// request is what both protocols have in common.
type request struct {
	typeURL          string
	add, remove      []string
	replace          bool // add is the whole list
	nonce, rejection string
}

// StreamSecrets implements the state of the world protocol.
func (s *Secrets) StreamSecrets(stream secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	nonce := 0
	return s.serve(stream.Context(), func() (request, error) {
		r, err := stream.Recv()
		return request{typeURL: r.GetTypeUrl(), add: r.GetResourceNames(), replace: true, nonce: r.GetResponseNonce(), rejection: r.GetErrorDetail().GetMessage()}, err
	}, func(secrets []secret, _ []string) error {
		nonce++
		response := &discoveryv3.DiscoveryResponse{TypeUrl: SecretType, Nonce: strconv.Itoa(nonce)}
		for _, one := range secrets {
			response.Resources = append(response.Resources, one.content)
			response.VersionInfo += one.version
		}
		return stream.Send(response)
	}, true)
}

// DeltaSecrets implements the incremental protocol.
func (s *Secrets) DeltaSecrets(stream secretv3.SecretDiscoveryService_DeltaSecretsServer) error {
	nonce := 0
	return s.serve(stream.Context(), func() (request, error) {
		r, err := stream.Recv()
		return request{
			typeURL: r.GetTypeUrl(), add: r.GetResourceNamesSubscribe(), remove: r.GetResourceNamesUnsubscribe(),
			nonce: r.GetResponseNonce(), rejection: r.GetErrorDetail().GetMessage(),
		}, err
	}, func(secrets []secret, unknown []string) error {
		nonce++
		response := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: SecretType, Nonce: strconv.Itoa(nonce), RemovedResources: unknown}
		for _, one := range secrets {
			response.Resources = append(response.Resources, &discoveryv3.Resource{Name: one.name, Version: one.version, Resource: one.content})
		}
		return stream.Send(response)
	}, false)
}

// FetchSecrets implements polling.
func (s *Secrets) FetchSecrets(ctx context.Context, r *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	w, err := s.Get(ctx)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	response := &discoveryv3.DiscoveryResponse{TypeUrl: SecretType}
	for _, name := range r.GetResourceNames() {
		one, err := pack(name, w)
		if err != nil {
			return nil, status.Error(codes.NotFound, err.Error())
		}
		response.Resources = append(response.Resources, one.content)
		response.VersionInfo += one.version
	}
	return response, nil
}

func pack(name string, w *certs.Workload) (secret, error) {
	made, version, err := Secret(name, w, true)
	if err != nil {
		return secret{}, err
	}
	content, err := anypb.New(made)
	return secret{name, version, content}, err
}

// serve is one stream. whole says that a response has all that is subscribed to, not only what changed.
func (s *Secrets) serve(ctx context.Context, recv func() (request, error), send func(changed []secret, unknown []string) error, whole bool) error {
	requests, failed := receive(ctx, recv)
	wanted := map[string]string{} // name → version that was sent; "" is not yet
	ticker := time.NewTicker(lookAgain)
	defer ticker.Stop()
	for {
		select {
		case r := <-requests:
			if r.typeURL != "" && r.typeURL != SecretType {
				return status.Errorf(codes.InvalidArgument, "type %q: only %s is served here", r.typeURL, SecretType)
			}
			if r.rejection != "" {
				s.Log.Error("the engine refused its certificate", "reason", r.rejection)
			}
			follow(wanted, r)
		case <-ticker.C:
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.update(ctx, wanted, send, whole); err != nil {
			return err
		}
	}
}

// follow applies a request to the names that are subscribed to.
func follow(wanted map[string]string, r request) {
	if r.replace {
		maps.DeleteFunc(wanted, func(name, _ string) bool { return !slices.Contains(r.add, name) })
	}
	for _, name := range r.remove {
		delete(wanted, name)
	}
	for _, name := range r.add {
		if _, ok := wanted[name]; !ok || !r.replace {
			wanted[name] = ""
		}
	}
}

// update sends what is new.
func (s *Secrets) update(ctx context.Context, wanted map[string]string, send func([]secret, []string) error, whole bool) error {
	if len(wanted) == 0 {
		return nil
	}
	w, err := s.Get(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.Log.Warn("no certificate for the engine yet", "error", err)
		return nil // the next look may find one
	}
	var all, changed []secret
	var unknown []string
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		one, err := pack(name, w)
		switch {
		case err != nil && wanted[name] == "":
			s.Log.Warn("the engine asks for a secret that there is not", "error", err)
			unknown = append(unknown, name)
			wanted[name] = "unknown"
		case err != nil:
		default:
			all = append(all, one)
			if wanted[name] != one.version {
				changed = append(changed, one)
				wanted[name] = one.version
			}
		}
	}
	if len(changed) == 0 && (whole || len(unknown) == 0) {
		return nil
	}
	if whole {
		changed = all
	}
	if err := send(changed, unknown); err != nil {
		return fmt.Errorf("send certificates: %w", err)
	}
	return nil
}

// receive turns Recv into channels. The goroutine ends with the stream.
func receive(ctx context.Context, recv func() (request, error)) (<-chan request, <-chan error) {
	requests, failed := make(chan request), make(chan error, 1)
	go func() {
		for {
			r, err := recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	return requests, failed
}
