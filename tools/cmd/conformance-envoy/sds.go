package main

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
)

// secretServer is the agent beside an Envoy, as far as Envoy sees it: it has the proxy's certificate.
type secretServer struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	secrets map[string]*anypb.Any
	grpc    *grpc.Server
}

func startSecretServer(socket string, w *certs.Workload) (*secretServer, error) {
	signer, ok := w.Certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("serve secrets: the key cannot sign")
	}
	key, err := keyPEM(signer)
	if err != nil {
		return nil, err
	}
	var chain, roots []byte
	for _, der := range w.Certificate.Certificate {
		chain = append(chain, pemOf("CERTIFICATE", der)...)
	}
	for _, c := range w.RootCerts {
		roots = append(roots, pemOf("CERTIFICATE", c.Raw)...)
	}
	inline := func(b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
	}
	s := &secretServer{secrets: map[string]*anypb.Any{}, grpc: grpc.NewServer()}
	for _, secret := range []*tlsv3.Secret{
		{Name: "default", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(chain), PrivateKey: inline(key)}}},
		{Name: "ROOTCA", Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(roots)}}},
	} {
		if s.secrets[secret.GetName()], err = anypb.New(secret); err != nil {
			return nil, err
		}
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("serve secrets: %w", err)
	}
	secretv3.RegisterSecretDiscoveryServiceServer(s.grpc, s)
	go s.grpc.Serve(listener)
	return s, nil
}

// StreamSecrets answers each new request once; nothing ever changes.
func (s *secretServer) StreamSecrets(stream secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if detail := request.GetErrorDetail(); detail != nil {
			return fmt.Errorf("secret refused: %s", detail.GetMessage())
		}
		if request.GetResponseNonce() != "" {
			continue
		}
		response := &discoveryv3.DiscoveryResponse{VersionInfo: "1", Nonce: "1", TypeUrl: request.GetTypeUrl()}
		for name, secret := range s.secrets {
			if slices.Contains(request.GetResourceNames(), name) {
				response.Resources = append(response.Resources, secret)
			}
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}
