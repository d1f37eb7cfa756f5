package upgradebed

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	authv1 "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// plane is a control plane that knows two pods, and certifies whatever it is asked to.
type plane struct {
	authv1.UnimplementedIstioCertificateServiceServer
	addr string
	grpc *grpc.Server
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newPlane() (*plane, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &plane{addr: listener.Addr().String(), grpc: grpc.NewServer(server.Options(server.Transport{})...), root: root, key: key}
	xds := server.New(server.Config{Log: slog.New(slog.DiscardHandler)})
	for i, name := range []string{"client", "server"} {
		resource, err := pod(name, []string{clientIP, serverIP}[i], nodeNames()[i])
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

func pod(name, ip, node string) (server.Resource, error) {
	uid := "Kubernetes//Pod/shop/" + name
	packed, err := anypb.New(&workload.Address{Type: &workload.Address_Workload{Workload: &workload.Workload{
		Uid: uid, Name: name, Namespace: "shop", ServiceAccount: name, Node: node, WorkloadName: name, CanonicalName: name,
		TunnelProtocol: workload.TunnelProtocol_HBONE, Addresses: [][]byte{netip.MustParseAddr(ip).AsSlice()},
	}}})
	return server.Resource{Name: uid, Version: "1", Any: packed}, err
}

// CreateCertificate certifies.
func (p *plane) CreateCertificate(_ context.Context, r *authv1.IstioCertificateRequest) (*authv1.IstioCertificateResponse, error) {
	id, err := spiffe.Parse(r.GetMetadata().GetFields()["ImpersonatedIdentity"].GetStringValue())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	chain, err := p.certify([]byte(r.GetCsr()), id)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &authv1.IstioCertificateResponse{CertChain: chain}, nil
}

func (p *plane) certify(request []byte, id spiffe.ID) ([]string, error) {
	block, _ := pem.Decode(request)
	if block == nil {
		return nil, errors.New("no request in PEM form")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse request: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{id.URL()}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, p.root, csr.PublicKey, p.key)
	if err != nil {
		return nil, err
	}
	var chain []string
	for _, der := range [][]byte{der, p.root.Raw} {
		chain = append(chain, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	}
	return chain, nil
}
