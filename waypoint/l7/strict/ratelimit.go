package strict

import "google.golang.org/protobuf/reflect/protoreflect"

func rateLimitFields(name protoreflect.FullName) string {
	switch name {
	case "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit":
		return "stat_prefix status token_bucket filter_enabled filter_enforced request_headers_to_add_when_not_enforced response_headers_to_add descriptors enable_x_ratelimit_headers always_consume_default_token_bucket rate_limited_as_resource_exhausted rate_limits max_dynamic_descriptors enable_retry_after_header"
	case "envoy.extensions.common.ratelimit.v3.LocalRateLimitDescriptor":
		return "entries token_bucket"
	case "envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry":
		return "key value"
	case "envoy.type.v3.TokenBucket":
		return "max_tokens tokens_per_fill fill_interval"
	case "envoy.config.route.v3.RateLimit":
		return "actions x_ratelimit_option"
	case "envoy.config.route.v3.RateLimit.Action":
		return "request_headers remote_address generic_key metadata extension"
	case "envoy.config.route.v3.RateLimit.Action.RequestHeaders":
		return "header_name descriptor_key skip_if_absent"
	case "envoy.config.route.v3.RateLimit.Action.GenericKey":
		return "descriptor_value descriptor_key"
	case "envoy.config.route.v3.RateLimit.Action.MetaData":
		return "descriptor_key metadata_key default_value source skip_if_absent"
	case "envoy.type.metadata.v3.MetadataKey":
		return "key path"
	case "envoy.type.metadata.v3.MetadataKey.PathSegment":
		return "key"
	case "envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor":
		return "descriptor_key skip_if_error text"
	}
	return ""
}
