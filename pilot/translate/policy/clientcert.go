package policy

import (
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	rulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// AnnotationForwardClient is "true" on the Gateway of a waypoint that is to tell applications who their clients are.
const AnnotationForwardClient = "ambient.istio.io/xfcc-include-client-identity"

const localPrincipal = "io.istio.local_principal"

// clientIdentity sets x-forwarded-client-cert to the identities of the tunnel's two ends. What clients have said there is gone before,
// whether it is set or not.
func clientIdentity() *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: "xfcc", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustAny(&mutationv3.HeaderMutation{
		Mutations: &mutationv3.Mutations{RequestMutations: []*rulesv3.HeaderMutation{{Action: &rulesv3.HeaderMutation_Append{
			Append: &corev3.HeaderValueOption{
				Header: &corev3.HeaderValue{
					Key:   "x-forwarded-client-cert",
					Value: "By=%FILTER_STATE(" + localPrincipal + ":PLAIN)%;URI=%FILTER_STATE(" + peerPrincipal + ":PLAIN)%",
				},
				AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			},
		}}}},
	})}}
}
