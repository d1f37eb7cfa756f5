package ca

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// Caller is somebody who has proved who they are.
type Caller struct {
	Namespace, ServiceAccount string
	// PodName and PodUID are set when the credential is bound to a pod.
	PodName, PodUID string
	// Node is the one that the credential says the pod is on; empty if it does not say.
	Node string
	// ClusterID is the one that the caller says it is in.
	ClusterID string
}

// ErrNoCredentials is what an Authenticator returns when the call has nothing for it.
var ErrNoCredentials = errors.New("no credentials of this kind")

// Authenticator identifies the caller of a gRPC call.
type Authenticator interface {
	Authenticate(ctx context.Context) (Caller, error)
}

// Authenticators are tried in order; the first that accepts counts.
type Authenticators []Authenticator

// Authenticate implements Authenticator. Its error says why each refused.
func (list Authenticators) Authenticate(ctx context.Context) (Caller, error) {
	var reasons []error
	for _, a := range list {
		caller, err := a.Authenticate(ctx)
		if err == nil {
			return caller, nil
		}
		if !errors.Is(err, ErrNoCredentials) {
			reasons = append(reasons, err)
		}
	}
	if len(reasons) == 0 {
		return Caller{}, errors.New("the call has no credentials that are accepted here")
	}
	return Caller{}, errors.Join(reasons...)
}

// bearer returns the token of a call.
func bearer(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, header := range md.Get("authorization") {
		if scheme, token, ok := strings.Cut(header, " "); ok && strings.EqualFold(scheme, "Bearer") && token != "" {
			return strings.TrimSpace(token), nil
		}
	}
	return "", ErrNoCredentials
}

// clusterOf returns the cluster that a call says it comes from.
func clusterOf(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if ids := md.Get("clusterid"); len(ids) > 0 {
		return ids[0]
	}
	return ""
}

// ClientCertificate accepts callers that present a certificate of the mesh. The TLS layer has verified its chain; a root may
// vouch for other meshes too, whose namespaces and accounts are not ours.
type ClientCertificate struct {
	// TrustDomains are the mesh's, by all its names.
	TrustDomains func() []string
}

// Authenticate implements Authenticator.
func (c ClientCertificate) Authenticate(ctx context.Context) (Caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Caller{}, ErrNoCredentials
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return Caller{}, ErrNoCredentials
	}
	leaf := info.State.VerifiedChains[0][0]
	id, ok := spiffe.FromCertificate(leaf)
	if !ok {
		return Caller{}, fmt.Errorf("the client certificate %s has no SPIFFE ID", leaf.SerialNumber)
	}
	if !slices.Contains(c.TrustDomains(), id.TrustDomain) {
		return Caller{}, fmt.Errorf("the client certificate's trust domain %q is not the mesh's: add it to trustDomainAliases if it is", id.TrustDomain)
	}
	return Caller{Namespace: id.Namespace, ServiceAccount: id.ServiceAccount, ClusterID: clusterOf(ctx)}, nil
}

// isSecure tells whether a call came over TLS.
func isSecure(ctx context.Context) bool {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return false
	}
	_, ok = p.AuthInfo.(credentials.TLSInfo)
	return ok
}
