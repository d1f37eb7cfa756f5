// Package ca obtains certificates from the mesh's CA, by the CSR API: istio.v1.auth.IstioCertificateService.
package ca

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
	authv1 "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/controlplane"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// Config of an Issuer.
type Config struct {
	Upstream controlplane.Upstream
	// TTL is the validity that is asked for.
	TTL time.Duration
	// Impersonate names the identity in each request, as the node proxy does for the pods of its node. Without it the CA issues
	// for the identity of the caller's own token, and another answer is refused.
	Impersonate bool
}

// Issuer asks the CA. It implements certs.Issuer.
type Issuer struct {
	conn   *grpc.ClientConn
	ca     authv1.IstioCertificateServiceClient
	config Config
}

// NewIssuer returns an Issuer. It connects when it is first used.
func NewIssuer(config Config) (*Issuer, error) {
	target, err := config.Upstream.Target()
	if err != nil {
		return nil, err
	}
	options, err := config.Upstream.DialOptions()
	if err != nil {
		return nil, err
	}
	// Retries are the certificate manager's; a call that waits here would hide why it fails.
	options = append(options, grpc.WithDisableServiceConfig(), grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 10 * time.Second}))
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fmt.Errorf("CA at %s: %w", target, err)
	}
	return &Issuer{conn: conn, ca: authv1.NewIstioCertificateServiceClient(conn), config: config}, nil
}

// Issue implements certs.Issuer. The key never leaves the process.
func (i *Issuer) Issue(ctx context.Context, id spiffe.ID) (*certs.Workload, error) {
	csr, key, err := certs.NewCSR(id)
	if err != nil {
		return nil, err
	}
	request := &authv1.IstioCertificateRequest{Csr: string(csr), ValidityDuration: int64(i.config.TTL / time.Second)}
	if i.config.Impersonate {
		if request.Metadata, err = structpb.NewStruct(map[string]any{"ImpersonatedIdentity": id.String()}); err != nil {
			return nil, err
		}
	}
	// A connection that failed before is tried again now, not when gRPC's own pause is over.
	i.conn.ResetConnectBackoff()
	response, err := i.ca.CreateCertificate(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	return certs.FromChain(id, key, response.GetCertChain())
}

// Close ends the connection.
func (i *Issuer) Close() error { return i.conn.Close() }
