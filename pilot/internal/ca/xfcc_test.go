package ca

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

func TestForwardedCertificates(t *testing.T) {
	t.Parallel()
	f := ForwardedCertificate{
		Trusted:      []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/8")},
		TrustDomains: func() []string { return []string{"cluster.local", "old.example"} },
	}
	const web = "URI=spiffe://cluster.local/ns/shop/sa/web"
	for _, c := range []struct {
		name, from string
		headers    []string
		want       string // namespace/account, or part of the error
	}{
		{"the identity", "10.1.2.3", []string{"By=spiffe://x;Hash=ab;" + web}, "shop/web"},
		{"by IPv6", "fd00::7", []string{web}, "shop/web"},
		{"of a former trust domain", "10.1.2.3", []string{"uri=spiffe://old.example/ns/a/sa/b"}, "a/b"},
		{"quoted values", "10.1.2.3", []string{`Subject="CN=a,O=\"b;c\"";` + web + `;DNS=x`}, "shop/web"},
		{"what the client wrote before does not count", "10.1.2.3", []string{"URI=spiffe://cluster.local/ns/istio-system/sa/istiod, Hash=1;" + web}, "shop/web"},
		{"nor what it sent as a header of its own", "10.1.2.3", []string{"URI=spiffe://cluster.local/ns/istio-system/sa/istiod", web}, "shop/web"},
		{"no identity in what the proxy saw", "10.1.2.3", []string{web + ",Hash=1"}, "no SPIFFE ID"},
		{"a caller that is not trusted", "10.2.0.1", []string{web}, "10.2.0.1 is in none of the trusted networks"},
		{"another mesh", "10.1.2.3", []string{"URI=spiffe://other/ns/a/sa/b"}, `trust domain "other"`},
		{"open quotes", "10.1.2.3", []string{`Subject="CN=a;` + web}, "ends within quotes"},
		{"too long", "10.1.2.3", []string{strings.Repeat("a", maxXFCC) + web}, "longer than"},
	} {
		md := metadata.MD{}
		md.Append(headerXFCC, c.headers...)
		ctx := peer.NewContext(metadata.NewIncomingContext(context.Background(), md), &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP(c.from)}})
		caller, err := f.Authenticate(ctx)
		if err != nil {
			if errors.Is(err, ErrNoCredentials) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if got := caller.Namespace + "/" + caller.ServiceAccount; got != c.want || caller.PodName != "" {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if _, err := f.Authenticate(peer.NewContext(context.Background(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3)}})); !errors.Is(err, ErrNoCredentials) {
		t.Errorf("without the header: %v", err)
	}
}

// FuzzLastURIs: whatever comes, what is found is in the header, and after the last comma that separates elements.
func FuzzLastURIs(f *testing.F) {
	f.Add(`By=spiffe://a;URI=spiffe://b,URI=spiffe://c`)
	f.Add(`Subject="CN=\"a,b\"";URI=x`)
	f.Add(`URI="a\`)
	f.Fuzz(func(t *testing.T, header string) {
		uris, err := lastURIs(header)
		if err != nil && len(uris) > 0 {
			t.Errorf("%q and %v", uris, err)
		}
		if !strings.ContainsAny(header, `"\`) {
			last := header[strings.LastIndex(header, ",")+1:]
			for _, u := range uris {
				if !strings.Contains(last, u) {
					t.Errorf("%q is not in the last element of %q", u, header)
				}
			}
		}
	})
}
