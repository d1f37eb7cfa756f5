package debug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

// The types that tools ask for, state-of-the-world.
const (
	// PageType is a debug page; its name is that of the resource, such as ambientz or config_dump?proxyID=x.y.
	PageType = "istio.io/debug"
	// SynczType is what each proxy was sent and has acknowledged, for istioctl proxy-status.
	SynczType = "istio.io/debug/syncz"
	// ConfigDumpType is what the proxy that is named is to have.
	ConfigDumpType = "istio.io/debug/config_dump"
)

// SotW are the types that tools ask for by xDS.
func (s *Server) SotW() map[string]server.SotWHandler {
	return map[string]server.SotWHandler{
		SynczType:      s.synczResources,
		ConfigDumpType: s.guarded(s.configDumpResources),
		PageType:       s.guarded(s.pageResources),

		ConnectionsType: s.connectionResources,
	}
}

// guarded answers those who may see debug pages.
func (s *Server) guarded(answer func(*discovery.DiscoveryRequest) ([]*anypb.Any, error)) server.SotWHandler {
	return func(ctx context.Context, r *discovery.DiscoveryRequest, peer server.Peer) ([]*anypb.Any, error) {
		if err := s.Allow(ctx, peer); err != nil {
			return nil, err
		}
		out, err := answer(r)
		var p *problem
		if errors.As(err, &p) {
			return nil, status.Error(p.grpc(), p.text)
		}
		return out, err
	}
}

func onlyName(r *discovery.DiscoveryRequest) (string, error) {
	if len(r.GetResourceNames()) != 1 {
		return "", &problem{http.StatusBadRequest, fmt.Sprintf("%s: name one resource, not %d", r.GetTypeUrl(), len(r.GetResourceNames()))}
	}
	return r.GetResourceNames()[0], nil
}

// pageResources is a page, in an Any that is no message, as such tools expect it.
func (s *Server) pageResources(r *discovery.DiscoveryRequest) ([]*anypb.Any, error) {
	name, err := onlyName(r)
	if err != nil {
		return nil, err
	}
	text, err := s.page(name)
	if err != nil {
		return nil, err
	}
	return []*anypb.Any{{TypeUrl: PageType, Value: text}}, nil
}

func (s *Server) page(name string) ([]byte, error) {
	at, err := url.Parse("/" + strings.TrimPrefix(name, "/"))
	if err != nil {
		return nil, &problem{http.StatusBadRequest, fmt.Sprintf("page %q: %v", name, err)}
	}
	path := strings.TrimPrefix(strings.TrimPrefix(at.Path, "/"), "debug/")
	if path == "list" || path == "" {
		return []byte(s.index()), nil
	}
	for _, e := range s.endpoints() {
		if e.path != path {
			continue
		}
		value, err := e.serve(at.Query())
		if err != nil {
			return nil, err
		}
		return json.MarshalIndent(value, "", "  ")
	}
	return nil, &problem{http.StatusNotFound, fmt.Sprintf("there is no page %q; list has those that there are", path)}
}

// problem is a request that cannot be answered, and why.
type problem struct {
	code int
	text string
}

func (p *problem) Error() string { return p.text }

func (p *problem) grpc() codes.Code {
	switch p.code {
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusBadRequest:
		return codes.InvalidArgument
	default:
		return codes.Internal
	}
}
