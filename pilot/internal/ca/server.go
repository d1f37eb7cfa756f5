package ca

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authv1 "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// maxLifetime is the longest that can be asked for without overflow, in seconds.
const maxLifetime = int64(1<<63-1) / int64(time.Second)

// impersonated is the key of the request's metadata under which a node proxy names the workload.
const impersonated = "ImpersonatedIdentity"

// Server is the CSR service.
type Server struct {
	authv1.UnimplementedIstioCertificateServiceServer
	// All fields are set before the first call.
	Authority     *Authority
	Authenticator Authenticator
	// Nodes authorizes calls on behalf of others; nil refuses them all.
	Nodes *NodeAuthorizer
	// TrustDomain of certificates that callers get for themselves.
	TrustDomain func() string
	Metrics     *Metrics
	Log         *slog.Logger
}

// CreateCertificate implements the service. The reasons for refusals are logged; the caller learns only what kind it is.
func (s *Server) CreateCertificate(ctx context.Context, r *authv1.IstioCertificateRequest) (*authv1.IstioCertificateResponse, error) {
	s.Metrics.requests.Inc()
	caller, err := s.authenticate(ctx)
	if err != nil {
		s.Metrics.authentication.Inc()
		s.Log.Warn("certificate request refused: caller not authenticated", "error", err)
		return nil, status.Error(codes.Unauthenticated, "request authenticate failure")
	}
	id := spiffe.ID{TrustDomain: s.TrustDomain(), Namespace: caller.Namespace, ServiceAccount: caller.ServiceAccount}
	if wanted := r.GetMetadata().GetFields()[impersonated].GetStringValue(); wanted != "" {
		if id, err = s.authorize(caller, wanted); err != nil {
			s.Metrics.authentication.Inc()
			s.Log.Warn("certificate request refused: impersonation", "caller", caller.Namespace+"/"+caller.ServiceAccount, "pod", caller.PodName, "wanted", wanted, "error", err)
			return nil, status.Error(codes.Unauthenticated, "request impersonation authentication failure")
		}
	}
	seconds := r.GetValidityDuration()
	if seconds > maxLifetime {
		seconds = maxLifetime
	}
	chain, err := s.Authority.Sign([]byte(r.GetCsr()), id, time.Duration(seconds)*time.Second)
	if err != nil {
		return nil, s.signingError(id, err)
	}
	s.Metrics.issued.Inc()
	s.Log.Debug("certificate issued", "identity", id.String(), "caller", caller.Namespace+"/"+caller.ServiceAccount)
	return &authv1.IstioCertificateResponse{CertChain: chain}, nil
}

func (s *Server) authenticate(ctx context.Context) (Caller, error) {
	if !isSecure(ctx) {
		return Caller{}, errors.New("certificates are issued over TLS only")
	}
	return s.Authenticator.Authenticate(ctx)
}

func (s *Server) authorize(caller Caller, wanted string) (spiffe.ID, error) {
	if s.Nodes == nil || len(s.Nodes.Trusted) == 0 {
		return spiffe.ID{}, errors.New("no node accounts are trusted (CA_TRUSTED_NODE_ACCOUNTS)")
	}
	return s.Nodes.Authorize(caller, wanted)
}

func (s *Server) signingError(id spiffe.ID, err error) error {
	var bad *requestError
	if errors.As(err, &bad) {
		s.Metrics.parsing.Inc()
		s.Log.Warn("certificate request refused", "identity", id.String(), "error", err)
		return status.Errorf(codes.InvalidArgument, "CSR signing error (%v)", err)
	}
	s.Metrics.signing.Inc()
	s.Log.Error("certificate not issued", "identity", id.String(), "error", err)
	return status.Errorf(codes.Internal, "CSR signing error (%v)", err)
}

// Metrics of the CSR service, named as Istio's.
type Metrics struct {
	requests, issued, parsing, signing, authentication prometheus.Counter
}

// NewMetrics registers the metrics, those of the authority's expiry among them.
func NewMetrics(registerer prometheus.Registerer, authority *Authority) (*Metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "citadel_server_" + name, Help: help})
	}
	m := &Metrics{
		requests:       counter("csr_count", "Certificate requests received."),
		issued:         counter("success_cert_issuance_count", "Certificates issued."),
		parsing:        counter("csr_parsing_err_count", "Certificate requests that could not be used."),
		signing:        counter("csr_sign_err_count", "Certificate requests that could not be signed."),
		authentication: counter("authentication_failure_count", "Certificate requests of callers that were refused."),
	}
	collectors := []prometheus.Collector{m.requests, m.issued, m.parsing, m.signing, m.authentication, counter("id_extraction_err_count", "Identities that could not be read from a request.")}
	for name, end := range map[string]func() time.Time{
		"root_cert":  func() time.Time { root, _ := authority.Expiry(); return root },
		"cert_chain": func() time.Time { _, chain := authority.Expiry(); return chain },
	} {
		collectors = append(collectors,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "citadel_server_" + name + "_expiry_timestamp", Help: "When it expires, in seconds since 1970."}, func() float64 {
				return float64(end().Unix())
			}),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "citadel_server_" + name + "_expiry_seconds", Help: "Seconds until it expires."}, func() float64 {
				return time.Until(end()).Seconds()
			}))
	}
	for _, c := range collectors {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register CA metrics: %w", err)
		}
	}
	return m, nil
}
