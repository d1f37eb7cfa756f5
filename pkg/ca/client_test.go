package ca_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	authv1 "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pkg/ca"
	"github.com/isthmus-mesh/isthmus/pkg/controlplane"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

// server answers with what the token's bearer is, or whom it speaks for.
type server struct {
	authv1.UnimplementedIstioCertificateServiceServer
	authority *testkit.CA
	own       spiffe.ID
	requests  chan *authv1.IstioCertificateRequest
	tokens    chan string
}

func (s *server) CreateCertificate(ctx context.Context, r *authv1.IstioCertificateRequest) (*authv1.IstioCertificateResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	s.requests <- r
	s.tokens <- strings.Join(md.Get("authorization"), ",") + " " + strings.Join(md.Get("clusterid"), ",")
	id := s.own
	if other := r.GetMetadata().GetFields()["ImpersonatedIdentity"].GetStringValue(); other != "" {
		parsed, err := spiffe.Parse(other)
		if err != nil {
			return nil, err
		}
		id = parsed
	}
	chain, err := s.authority.Chain([]byte(r.GetCsr()), id, time.Hour)
	return &authv1.IstioCertificateResponse{CertChain: chain}, err
}

func TestIssue(t *testing.T) {
	authority, err := testkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	own := spiffe.ID{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "waypoint"}
	other := spiffe.ID{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "reviews"}
	s := &server{authority: authority, own: own, requests: make(chan *authv1.IstioCertificateRequest, 1), tokens: make(chan string, 1)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := grpc.NewServer()
	authv1.RegisterIstioCertificateServiceServer(served, s)
	go func() { _ = served.Serve(listener) }()
	defer served.Stop()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name        string
		impersonate bool
		ask         spiffe.ID
		fails       string
	}{
		{"the caller's own", false, own, ""},
		{"a pod's of the node", true, other, ""},
		{"another than the token's", false, other, "the CA issued it for"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			issuer, err := ca.NewIssuer(ca.Config{
				Upstream:    controlplane.Upstream{URL: "http://" + listener.Addr().String(), TokenFile: token, ClusterID: "c1"},
				TTL:         time.Hour,
				Impersonate: tt.impersonate,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer issuer.Close()
			issued, err := issuer.Issue(t.Context(), tt.ask)
			request, said := <-s.requests, <-s.tokens
			if request.GetValidityDuration() != 3600 || (request.GetMetadata() != nil) != tt.impersonate || said != "Bearer secret c1" {
				t.Errorf("asked for %v as %q", request, said)
			}
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("%v, want %q", err, tt.fails)
				}
				return
			}
			if err != nil || issued.ID != tt.ask {
				t.Errorf("%v, %v", issued, err)
			}
		})
	}
}
