package extauthz

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	networkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ext_authz/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/match"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// CompileNetwork compiles the network filter, which asks about connections by gRPC.
func CompileNetwork(p *networkv3.ExtAuthz) (*Filter, error) {
	if p.GetTransportApiVersion() != corev3.ApiVersion_V3 {
		return nil, strict.Errorf("transport_api_version", "must be V3")
	}
	f := &Filter{failOpen: p.GetFailureModeAllow(), statusOnError: 403}
	var err error
	if m := p.GetFilterEnabledMetadata(); m != nil {
		if f.enabled, err = match.CompileMetadata(m); err != nil {
			return nil, strict.At(err, "filter_enabled_metadata")
		}
	}
	return f, strict.At(f.grpc(p.GetGrpcService()), "grpc_service")
}

// AskConn makes the question about a connection.
func (f *Filter) AskConn(c *exchange.Conn) (Question, error) {
	return f.check(&authv3.AttributeContext{
		Source:      &authv3.AttributeContext_Peer{Address: address(c.Source), Principal: c.Identity},
		Destination: &authv3.AttributeContext_Peer{Address: address(c.Destination), Principal: c.LocalIdentity},
	})
}

// Passes is whether a connection may pass; otherwise the details say why not.
func (f *Filter) Passes(v *Verdict) (details string, ok bool) {
	switch v.Outcome {
	case Allowed:
		return "", true
	case Failed:
		if f.failOpen {
			return "", true
		}
		return "ext_authz_error", false
	case Denied, TooLarge, Invalid:
	}
	return "ext_authz_denied", false
}
