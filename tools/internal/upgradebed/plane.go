package upgradebed

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	authv1 "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// plane is a control plane that knows two pods, and certifies whatever it is asked to.
type plane struct {
	authv1.UnimplementedIstioCertificateServiceServer
	addr string
	grpc *grpc.Server
	ca   *testkit.CA
}

func newPlane(plain bool) (*plane, error) {
	ca, err := testkit.NewCA()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &plane{addr: listener.Addr().String(), grpc: grpc.NewServer(server.Options(server.Transport{})...), ca: ca}
	xds := server.New(server.Config{Log: slog.New(slog.DiscardHandler)})
	tunnel := workload.TunnelProtocol_HBONE
	if plain {
		tunnel = workload.TunnelProtocol_NONE
	}
	for i, name := range []string{"client", "server"} {
		resource, err := pod(name, []string{clientIP, serverIP}[i], nodeNames()[i], tunnel)
		if err != nil {
			return nil, err
		}
		xds.Publish(l4.AddressType, []server.Resource{resource}, nil)
	}
	discovery.RegisterAggregatedDiscoveryServiceServer(p.grpc, xds)
	authv1.RegisterIstioCertificateServiceServer(p.grpc, p)
	go func() { _ = p.grpc.Serve(listener) }() // until close
	return p, nil
}

func (p *plane) close() { p.grpc.Stop() }

func pod(name, ip, node string, tunnel workload.TunnelProtocol) (server.Resource, error) {
	uid := "Kubernetes//Pod/shop/" + name
	packed, err := anypb.New(&workload.Address{Type: &workload.Address_Workload{Workload: &workload.Workload{
		Uid: uid, Name: name, Namespace: "shop", ServiceAccount: name, Node: node, WorkloadName: name, CanonicalName: name,
		TunnelProtocol: tunnel, Addresses: [][]byte{netip.MustParseAddr(ip).AsSlice()},
	}}})
	return server.Resource{Name: uid, Version: "1", Any: packed}, err
}

// CreateCertificate certifies.
func (p *plane) CreateCertificate(_ context.Context, r *authv1.IstioCertificateRequest) (*authv1.IstioCertificateResponse, error) {
	id, err := spiffe.Parse(r.GetMetadata().GetFields()["ImpersonatedIdentity"].GetStringValue())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	chain, err := p.ca.Chain([]byte(r.GetCsr()), id, time.Hour)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &authv1.IstioCertificateResponse{CertChain: chain}, nil
}
