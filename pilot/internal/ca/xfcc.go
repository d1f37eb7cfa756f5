package ca

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// headerXFCC is where a proxy that has ended a client's TLS says what certificate the client had.
const headerXFCC = "x-forwarded-client-cert"

// maxXFCC bounds the header: certificates may be in it, chains of them too.
const maxXFCC = 64 << 10

// ForwardedCertificate accepts callers whose certificate a trusted proxy tells, as a gateway before the control plane does. Whoever can
// send from a trusted network can claim to be anybody, but no pod: certificates of other accounts are issued to pods of nodes only.
type ForwardedCertificate struct {
	// Trusted are the networks of these proxies; nobody else is believed.
	Trusted []netip.Prefix
	// TrustDomains are the mesh's, by all its names.
	TrustDomains func() []string
}

// Authenticate implements Authenticator.
func (f ForwardedCertificate) Authenticate(ctx context.Context) (Caller, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	headers := md.Get(headerXFCC)
	if len(headers) == 0 {
		return Caller{}, ErrNoCredentials
	}
	from, ok := callerAddress(ctx)
	if !ok || !slices.ContainsFunc(f.Trusted, func(p netip.Prefix) bool { return p.Contains(from) }) {
		return Caller{}, fmt.Errorf("%s: the caller %s is in none of the trusted networks (TRUSTED_GATEWAY_CIDR)", headerXFCC, from)
	}
	// The last element is what the proxy itself has seen; those before may be what its client wrote.
	uris, err := lastURIs(headers[len(headers)-1])
	if err != nil {
		return Caller{}, fmt.Errorf("%s: %w", headerXFCC, err)
	}
	for _, uri := range uris {
		id, err := spiffe.Parse(uri)
		if err != nil {
			continue
		}
		if !slices.Contains(f.TrustDomains(), id.TrustDomain) {
			return Caller{}, fmt.Errorf("%s: the trust domain %q is not the mesh's: add it to trustDomainAliases if it is", headerXFCC, id.TrustDomain)
		}
		return Caller{Namespace: id.Namespace, ServiceAccount: id.ServiceAccount, ClusterID: clusterOf(ctx)}, nil
	}
	return Caller{}, fmt.Errorf("%s: the last element has no SPIFFE ID", headerXFCC)
}

// callerAddress is whom the connection is from.
func callerAddress(ctx context.Context) (netip.Addr, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Addr{}, false
	}
	tcp, ok := p.Addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(tcp.IP)
	return addr.Unmap(), ok
}

// lastURIs are the values of URI in the last element of the header: elements are separated by commas, their pairs by semicolons, and
// values that have one of these are in double quotes, in which a backslash takes the next character as it is.
func lastURIs(header string) (out []string, err error) {
	if len(header) > maxXFCC {
		return nil, fmt.Errorf("longer than %d bytes", maxXFCC)
	}
	var pair strings.Builder
	take := func() {
		key, value, found := strings.Cut(pair.String(), "=")
		if found && strings.EqualFold(strings.TrimSpace(key), "uri") && value != "" {
			out = append(out, strings.TrimSpace(value))
		}
		pair.Reset()
	}
	quoted := false
	for i := 0; i < len(header); i++ {
		switch c := header[i]; {
		case c == '\\' && quoted:
			if i++; i == len(header) {
				return nil, errors.New("ends within an escape")
			}
			pair.WriteByte(header[i])
		case c == '"':
			quoted = !quoted
		case c == ';' && !quoted:
			take()
		case c == ',' && !quoted:
			pair.Reset()
			out = nil
		default:
			pair.WriteByte(c)
		}
	}
	if quoted {
		return nil, errors.New("ends within quotes")
	}
	take()
	return out, nil
}
