// Package identity obtains the certificates of the node's workloads from the CA, by the CSR API.
package identity

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
	authv1 "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/controlplane"
)

// Issuer asks the CA on behalf of the workloads of this node. It implements certs.Issuer.
type Issuer struct {
	conn *grpc.ClientConn
	ca   authv1.IstioCertificateServiceClient
	ttl  time.Duration
}

// NewIssuer returns an Issuer that asks for certificates valid for ttl. It connects when it is first used.
func NewIssuer(upstream controlplane.Upstream, ttl time.Duration) (*Issuer, error) {
	target, err := upstream.Target()
	if err != nil {
		return nil, err
	}
	options, err := upstream.DialOptions()
	if err != nil {
		return nil, err
	}
	// Retries are the certificate manager's; a call that waits here would hide why it fails.
	options = append(options, grpc.WithDisableServiceConfig(), grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 10 * time.Second}))
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fmt.Errorf("CA at %s: %w", target, err)
	}
	return &Issuer{conn: conn, ca: authv1.NewIstioCertificateServiceClient(conn), ttl: ttl}, nil
}

// Issue implements certs.Issuer. The key never leaves the process.
func (i *Issuer) Issue(ctx context.Context, id spiffe.ID) (*certs.Workload, error) {
	csr, key, err := certs.NewCSR(id)
	if err != nil {
		return nil, err
	}
	about, err := structpb.NewStruct(map[string]any{"ImpersonatedIdentity": id.String()})
	if err != nil {
		return nil, err
	}
	// A connection that failed before is tried again now, not when gRPC's own pause is over.
	i.conn.ResetConnectBackoff()
	response, err := i.ca.CreateCertificate(ctx, &authv1.IstioCertificateRequest{
		Csr: string(csr), ValidityDuration: int64(i.ttl / time.Second), Metadata: about,
	})
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	return certs.FromChain(id, key, response.GetCertChain())
}

// Close ends the connection.
func (i *Issuer) Close() error { return i.conn.Close() }
