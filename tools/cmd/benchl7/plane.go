package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
	authv1 "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pkg/testkit"
)

// plane gives the proxies their configuration and certificates, and is silent while they are measured. Our engine and Envoy get
// the same resources from it.
type plane struct {
	authv1.UnimplementedIstioCertificateServiceServer
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	secretv3.UnimplementedSecretDiscoveryServiceServer

	// immutable
	address   string
	authority *testkit.CA
	secrets   resources
	server    *grpc.Server

	mu      sync.Mutex // guards the rest
	pods    map[string]*consumer
	refused []string
}

// resources by type and name.
type resources map[string]map[string]*anypb.Any

func startPlane() (*plane, error) {
	ca, err := testkit.NewCA()
	if err != nil {
		return nil, err
	}
	p := &plane{authority: ca, pods: map[string]*consumer{}, secrets: resources{}, server: grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))}
	w, key, err := issue(ca, account("proxy"))
	if err != nil {
		return nil, err
	}
	var chain string
	for _, der := range w.Certificate.Certificate {
		chain += encode("CERTIFICATE", der)
	}
	inline := func(s string) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
	}
	err = p.secrets.add(
		&tlsv3.Secret{Name: "default", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(chain), PrivateKey: inline(key)}}},
		&tlsv3.Secret{Name: "ROOTCA", Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: inline(string(ca.RootPEM())),
		}}})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p.address = listener.Addr().String()
	authv1.RegisterIstioCertificateServiceServer(p.server, p)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(p.server, p)
	secretv3.RegisterSecretDiscoveryServiceServer(p.server, p)
	go func() { _ = p.server.Serve(listener) }()
	return p, nil
}

func (p *plane) close() {
	if p != nil {
		p.server.Stop()
	}
}

// set says what a pod gets when it asks.
func (p *plane) set(pod string, r resources) { p.hold(pod, r).release() }

// hold is set for a pod that has to wait until it is released.
func (p *plane) hold(pod string, r resources) *consumer {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := newConsumer(r)
	p.pods[pod] = c
	return c
}

// problem is what a proxy has refused, if anything.
func (p *plane) problem() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.refused) == 0 {
		return nil
	}
	return fmt.Errorf("configuration refused: %s", strings.Join(p.refused, "; "))
}

// CreateCertificate signs whatever it is asked to.
func (p *plane) CreateCertificate(_ context.Context, r *authv1.IstioCertificateRequest) (*authv1.IstioCertificateResponse, error) {
	chain, err := p.authority.Chain([]byte(r.GetCsr()), account("proxy"), lifetime)
	return &authv1.IstioCertificateResponse{CertChain: chain}, err
}

// DeltaAggregatedResources answers each subscription once; what changes is pushed.
func (p *plane) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	var to *consumer
	asked := map[string]bool{}
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if to == nil {
			if to, err = p.consumer(r.GetNode()); err != nil {
				return err
			}
			if err := to.begin(stream); err != nil {
				return err
			}
		}
		p.note(r.GetErrorDetail().GetMessage(), r.GetTypeUrl())
		if r.GetErrorDetail() == nil {
			to.answered(r.GetResponseNonce())
		}
		first := !asked[r.GetTypeUrl()]
		asked[r.GetTypeUrl()] = true
		names := r.GetResourceNamesSubscribe()
		all := slices.Contains(names, "*") || first && len(names) == 0
		if !all && len(names) == 0 {
			continue // what was sent is acknowledged
		}
		content := map[string]*anypb.Any{}
		for name, resource := range to.content[r.GetTypeUrl()] {
			if all || slices.Contains(names, name) {
				content[name] = resource
			}
		}
		if err := to.send(r.GetTypeUrl(), content); err != nil {
			return err
		}
	}
}

func (p *plane) consumer(node *corev3.Node) (*consumer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pod, c := range p.pods {
		if strings.Contains(node.GetId(), "~"+pod+"."+namespace+"~") {
			return c, nil
		}
	}
	return nil, fmt.Errorf("nothing is known of %q", node.GetId())
}

func (p *plane) note(message, what string) {
	if message == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = append(p.refused, what+": "+message)
}

// StreamSecrets is what an agent does beside Envoy.
func (p *plane) StreamSecrets(stream secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		p.note(r.GetErrorDetail().GetMessage(), r.GetTypeUrl())
		if r.GetResponseNonce() != "" {
			continue
		}
		response := &discoveryv3.DiscoveryResponse{VersionInfo: "1", Nonce: "1", TypeUrl: r.GetTypeUrl()}
		for _, name := range r.GetResourceNames() {
			secret := p.secrets[r.GetTypeUrl()][name]
			if secret == nil {
				return errors.New("no such secret: " + name)
			}
			response.Resources = append(response.Resources, secret)
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}
