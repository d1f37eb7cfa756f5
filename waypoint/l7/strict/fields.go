package strict

import "google.golang.org/protobuf/reflect/protoreflect"

// supported lists the fields of a message that the engine honours, or that cannot matter to it: names of statistics, buffer limits,
// options of sockets and codecs that only tune. "name!" is not looked into.
func supported(name protoreflect.FullName) (fields string, known bool) {
	for _, table := range []func(protoreflect.FullName) string{routeFields, filterFields, rateLimitFields, listenerFields, clusterFields, commonFields, telemetryFields, istioFields} {
		if fields = table(name); fields != "" {
			return fields, true
		}
	}
	switch name { // messages without a field
	case "envoy.config.route.v3.RouteMatch.ConnectMatcher", "envoy.config.route.v3.RouteAction.UpgradeConfig.ConnectConfig",
		"envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions", "envoy.config.route.v3.NonForwardingAction",
		"envoy.extensions.filters.http.cors.v3.Cors", "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
		"envoy.extensions.filters.listener.original_dst.v3.OriginalDst", "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
		"envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer", "envoy.extensions.matching.common_inputs.network.v3.DestinationIPInput",
		"envoy.extensions.matching.common_inputs.network.v3.DestinationPortInput", "envoy.extensions.matching.common_inputs.network.v3.SourceIPInput",
		"envoy.extensions.matching.common_inputs.network.v3.DirectSourceIPInput",
		"envoy.extensions.matching.common_inputs.network.v3.ServerNameInput", "envoy.extensions.matching.common_inputs.network.v3.TransportProtocolInput",
		"envoy.extensions.matching.common_inputs.network.v3.ApplicationProtocolInput",
		"envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate", "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate",
		"envoy.type.matcher.v3.ValueMatcher.NullMatch", "envoy.type.matcher.v3.RegexMatcher.GoogleRE2",
		"envoy.extensions.filters.http.jwt_authn.v3.JwtCacheConfig", "envoy.config.listener.v3.Listener.InternalListenerConfig",
		"envoy.config.cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig", "envoy.type.v3.HashPolicy.SourceIp",
		"envoy.config.route.v3.RateLimit.Action.RemoteAddress":
		return "", true
	}
	return "", false
}

func routeFields(name protoreflect.FullName) string {
	switch name {
	case "envoy.config.route.v3.RouteConfiguration":
		return "name virtual_hosts internal_only_headers response_headers_to_add response_headers_to_remove request_headers_to_add request_headers_to_remove most_specific_header_mutations_wins validate_clusters max_direct_response_body_size_bytes request_mirror_policies ignore_port_in_host_matching typed_per_filter_config metadata!"
	case "envoy.config.route.v3.VirtualHost":
		return "name domains routes require_tls request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove typed_per_filter_config include_request_attempt_count include_attempt_count_in_response retry_policy per_request_buffer_limit_bytes request_body_buffer_limit request_mirror_policies metadata!"
	case "envoy.config.route.v3.Route":
		return "name match route redirect direct_response non_forwarding_action metadata! decorator typed_per_filter_config request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove per_request_buffer_limit_bytes request_body_buffer_limit stat_prefix"
	case "envoy.config.route.v3.RouteMatch":
		return "prefix path safe_regex connect_matcher path_separated_prefix case_sensitive runtime_fraction headers query_parameters grpc dynamic_metadata filter_state"
	case "envoy.config.route.v3.WeightedCluster":
		return "clusters total_weight runtime_key_prefix!"
	case "envoy.config.route.v3.WeightedCluster.ClusterWeight":
		return "name weight request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove typed_per_filter_config host_rewrite_literal"
	case "envoy.config.route.v3.RouteAction":
		return "cluster weighted_clusters cluster_not_found_response_code prefix_rewrite regex_rewrite host_rewrite_literal auto_host_rewrite host_rewrite_header append_x_forwarded_host timeout idle_timeout retry_policy request_mirror_policies hash_policy max_grpc_timeout grpc_timeout_offset upgrade_configs max_stream_duration"
	case "envoy.config.route.v3.RouteAction.MaxStreamDuration":
		return "max_stream_duration grpc_timeout_header_max grpc_timeout_header_offset"
	case "envoy.config.route.v3.RouteAction.UpgradeConfig":
		return "upgrade_type enabled connect_config"
	case "envoy.config.route.v3.RouteAction.RequestMirrorPolicy":
		return "cluster runtime_fraction disable_shadow_host_suffix_append trace_sampled!"
	case "envoy.config.route.v3.RouteAction.HashPolicy":
		return "header cookie connection_properties query_parameter terminal"
	case "envoy.config.route.v3.RouteAction.HashPolicy.Header":
		return "header_name regex_rewrite"
	case "envoy.config.route.v3.RouteAction.HashPolicy.Cookie":
		return "name ttl path attributes"
	case "envoy.config.route.v3.RouteAction.HashPolicy.CookieAttribute":
		return "name value"
	case "envoy.config.route.v3.RouteAction.HashPolicy.ConnectionProperties":
		return "source_ip"
	case "envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter":
		return "name"
	case "envoy.config.route.v3.RetryPolicy":
		return "retry_on num_retries per_try_timeout per_try_idle_timeout retry_host_predicate retry_priority host_selection_retry_max_attempts retriable_status_codes retry_back_off retriable_headers retriable_request_headers"
	case "envoy.config.route.v3.RetryPolicy.RetryBackOff":
		return "base_interval max_interval"
	case "envoy.config.route.v3.RetryPolicy.RetryHostPredicate", "envoy.config.route.v3.RetryPolicy.RetryPriority":
		return "name typed_config"
	case "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig":
		return "update_frequency"
	case "envoy.config.route.v3.RedirectAction":
		return "https_redirect scheme_redirect host_redirect port_redirect path_redirect prefix_rewrite regex_rewrite response_code strip_query"
	case "envoy.config.route.v3.DirectResponseAction":
		return "status body"
	case "envoy.config.route.v3.Decorator":
		return "operation propagate!"
	case "envoy.config.route.v3.FilterConfig":
		return "config is_optional disabled"
	}
	return ""
}

func commonFields(name protoreflect.FullName) string {
	switch name {
	case "envoy.config.route.v3.HeaderMatcher":
		return "name exact_match safe_regex_match range_match present_match prefix_match suffix_match contains_match string_match invert_match treat_missing_header_as_empty"
	case "envoy.config.route.v3.QueryParameterMatcher":
		return "name string_match present_match"
	case "envoy.type.matcher.v3.StringMatcher":
		return "exact prefix suffix safe_regex contains ignore_case"
	case "envoy.type.matcher.v3.RegexMatcher":
		return "google_re2! regex"
	case "envoy.type.matcher.v3.RegexMatchAndSubstitute":
		return "pattern substitution"
	case "envoy.type.matcher.v3.PathMatcher":
		return "path"
	case "envoy.type.matcher.v3.MetadataMatcher":
		return "filter path value invert"
	case "envoy.type.matcher.v3.FilterStateMatcher":
		return "key string_match address_match"
	case "envoy.type.matcher.v3.AddressMatcher":
		return "ranges invert_match"
	case "envoy.type.matcher.v3.MetadataMatcher.PathSegment":
		return "key"
	case "envoy.type.matcher.v3.ValueMatcher":
		return "null_match double_match string_match bool_match present_match list_match or_match"
	case "envoy.type.matcher.v3.DoubleMatcher":
		return "range exact"
	case "envoy.type.matcher.v3.ListMatcher":
		return "one_of"
	case "envoy.type.matcher.v3.OrMatcher":
		return "value_matchers"
	case "envoy.type.v3.DoubleRange", "envoy.type.v3.Int64Range", "envoy.type.v3.Int32Range":
		return "start end"
	case "envoy.type.v3.FractionalPercent":
		return "numerator denominator"
	case "envoy.type.v3.Percent":
		return "value"
	case "envoy.config.core.v3.RuntimeFractionalPercent", "envoy.config.core.v3.RuntimePercent", "envoy.config.core.v3.RuntimeFeatureFlag":
		// There is no runtime: the default holds.
		return "default_value runtime_key!"
	case "envoy.config.core.v3.HeaderValueOption":
		return "header append append_action keep_empty_value"
	case "envoy.config.core.v3.HeaderValue":
		return "key value raw_value"
	case "envoy.config.core.v3.DataSource":
		return "inline_bytes inline_string filename!"
	case "envoy.config.core.v3.SubstitutionFormatString":
		return "text_format text_format_source omit_empty_values"
	case "envoy.config.core.v3.CidrRange":
		return "address_prefix prefix_len"
	case "envoy.config.core.v3.TypedExtensionConfig":
		return "name typed_config"
	case "envoy.config.core.v3.TransportSocket":
		return "name typed_config"
	case "envoy.config.core.v3.Address":
		return "socket_address envoy_internal_address"
	case "envoy.config.core.v3.SocketAddress":
		return "protocol address port_value ipv4_compat"
	case "envoy.config.core.v3.EnvoyInternalAddress":
		return "server_listener_name endpoint_id"
	case "envoy.config.core.v3.HttpProtocolOptions":
		return "idle_timeout max_connection_duration max_headers_count max_stream_duration max_requests_per_connection"
	case "envoy.config.core.v3.Http1ProtocolOptions":
		return "accept_http_10 default_host_for_http_10 enable_trailers override_stream_error_on_invalid_http_message use_balsa_parser"
	case "envoy.config.core.v3.Http2ProtocolOptions":
		return "hpack_table_size max_concurrent_streams initial_stream_window_size initial_connection_window_size allow_connect max_outbound_frames max_outbound_control_frames max_consecutive_inbound_frames_with_empty_payload max_inbound_priority_frames_per_stream max_inbound_window_update_frames_per_data_frame_sent override_stream_error_on_invalid_http_message connection_keepalive use_oghttp2_codec enable_huffman_encoding"
	case "envoy.config.core.v3.KeepaliveSettings":
		return "interval timeout interval_jitter connection_idle_interval"
	case "envoy.config.core.v3.SchemeHeaderTransformation":
		return "scheme_to_overwrite match_upstream"
	case "xds.type.matcher.v3.Matcher":
		return "matcher_list matcher_tree on_no_match"
	case "xds.type.matcher.v3.Matcher.MatcherList":
		return "matchers"
	case "xds.type.matcher.v3.Matcher.MatcherList.FieldMatcher":
		return "predicate on_match"
	case "xds.type.matcher.v3.Matcher.MatcherList.Predicate":
		return "single_predicate"
	case "xds.type.matcher.v3.Matcher.MatcherList.Predicate.SinglePredicate":
		return "input value_match"
	case "xds.type.matcher.v3.StringMatcher":
		return "exact suffix"
	case "xds.type.matcher.v3.Matcher.MatcherTree":
		return "input exact_match_map custom_match"
	case "xds.type.matcher.v3.Matcher.MatcherTree.MatchMap":
		return "map"
	case "xds.type.matcher.v3.Matcher.OnMatch":
		return "matcher action"
	case "xds.core.v3.TypedExtensionConfig":
		return "name typed_config"
	case "xds.type.matcher.v3.IPMatcher":
		return "range_matchers"
	case "xds.type.matcher.v3.IPMatcher.IPRangeMatcher":
		return "ranges on_match"
	case "xds.core.v3.CidrRange":
		return "address_prefix prefix_len"
	}
	return ""
}
