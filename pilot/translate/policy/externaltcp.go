package policy

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	networkextauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ext_authz/v3"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

const networkExtAuthzName = "envoy.filters.network.ext_authz"

// customNetwork asks a provider by gRPC about connections. One by HTTP cannot be asked about what is no request: connections that the
// rules match are denied then, as they are without anybody to ask.
func (in Input) customNetwork(c custom) []*listenerv3.Filter {
	rules := in.customRules(c, true)
	filter, err := in.extAuthz(c)
	if err != nil || filter.GetGrpcService() == nil {
		return []*listenerv3.Filter{(&ruleSet{enforced: c.refuse(rules)}).networkFilter()}
	}
	ask := &networkextauthzv3.ExtAuthz{
		StatPrefix: "tcp.", GrpcService: filter.GetGrpcService(), FailureModeAllow: filter.GetFailureModeAllow(), TransportApiVersion: corev3.ApiVersion_V3,
		FilterEnabledMetadata: &matcherv3.MetadataMatcher{
			Filter: networkRBACName, Path: filter.GetFilterEnabledMetadata().GetPath(), Value: filter.GetFilterEnabledMetadata().GetValue(),
		},
	}
	return []*listenerv3.Filter{
		(&ruleSet{shadow: rules, shadowPrefix: customShadow}).networkFilter(),
		{Name: networkExtAuthzName, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: mustAny(ask)}},
	}
}
