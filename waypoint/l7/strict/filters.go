package strict

import "google.golang.org/protobuf/reflect/protoreflect"

func filterFields(name protoreflect.FullName) string {
	switch name {
	case "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager":
		return "codec_type stat_prefix rds route_config http_filters common_http_protocol_options http_protocol_options http2_protocol_options server_name server_header_transformation scheme_header_transformation max_request_headers_kb stream_idle_timeout request_timeout request_headers_timeout drain_timeout delayed_close_timeout access_log! use_remote_address xff_num_trusted_hops internal_address_config skip_xff_append via generate_request_id preserve_external_request_id always_set_request_id_in_response forward_client_cert_details set_current_client_cert_details! upgrade_configs normalize_path merge_slashes path_with_escaped_slashes_action request_id_extension strip_matching_host_port strip_any_host_port stream_error_on_invalid_http_message strip_trailing_host_dot tracing"
	case "envoy.extensions.filters.network.http_connection_manager.v3.RequestIDExtension":
		return "typed_config"
	case "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig":
		return "use_request_id_for_trace_sampling pack_trace_reason"
	case "envoy.extensions.filters.network.http_connection_manager.v3.Rds":
		return "config_source! route_config_name"
	case "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter":
		return "name typed_config disabled is_optional"
	case "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.InternalAddressConfig":
		return "cidr_ranges"
	case "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig":
		return "upgrade_type enabled"
	case "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy":
		return "stat_prefix cluster weighted_clusters idle_timeout access_log! max_connect_attempts hash_policy tunneling_config max_downstream_connection_duration"
	case "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster":
		return "clusters"
	case "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight":
		return "name weight"
	case "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.TunnelingConfig":
		return "hostname headers_to_add"
	case "envoy.type.v3.HashPolicy":
		return "source_ip"
	case "envoy.extensions.filters.http.router.v3.Router":
		return "dynamic_stats! start_child_span! suppress_envoy_headers respect_expected_rq_timeout suppress_grpc_request_failure_code_stats!"
	case "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig":
		return "emit_filter_state! stats_for_all_methods! individual_method_stats_allowlist! enable_upstream_stats!"
	case "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector":
		return "enable_ja3_fingerprinting! initial_read_buffer_size!"
	case "envoy.extensions.filters.http.set_filter_state.v3.Config":
		return "on_request_headers"
	case "envoy.extensions.filters.network.set_filter_state.v3.Config":
		return "on_new_connection"
	case "envoy.extensions.filters.common.set_filter_state.v3.FilterStateValue":
		return "object_key factory_key format_string read_only shared_with_upstream skip_if_empty"
	case "envoy.extensions.filters.http.cors.v3.CorsPolicy":
		return "allow_origin_string_match allow_methods allow_headers expose_headers max_age allow_credentials filter_enabled shadow_enabled allow_private_network_access forward_not_matching_preflights"
	case "envoy.extensions.filters.http.stateful_session.v3.StatefulSession":
		return "session_state strict stat_prefix! status_on_strict_destination_not_found"
	case "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute":
		return "disabled stateful_session"
	case "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState":
		return "cookie"
	case "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState":
		return "name"
	case "envoy.type.http.v3.Cookie":
		return "name ttl path attributes"
	case "envoy.type.http.v3.CookieAttribute":
		return "name value"
	case "envoy.extensions.filters.http.fault.v3.HTTPFault":
		return "delay abort upstream_cluster headers disable_downstream_cluster_stats!"
	case "envoy.extensions.filters.common.fault.v3.FaultDelay":
		return "fixed_delay percentage"
	case "envoy.extensions.filters.http.fault.v3.FaultAbort":
		return "http_status grpc_status percentage"
	}
	if fields := authFields(name); fields != "" {
		return fields
	}
	return externalFields(name)
}

func authFields(name protoreflect.FullName) string {
	switch name {
	case "envoy.extensions.filters.http.rbac.v3.RBAC":
		return "rules rules_stat_prefix! shadow_rules shadow_rules_stat_prefix track_per_rule_stats!"
	case "envoy.extensions.filters.http.rbac.v3.RBACPerRoute":
		return "rbac"
	case "envoy.extensions.filters.network.rbac.v3.RBAC":
		return "rules shadow_rules stat_prefix! enforcement_type shadow_rules_stat_prefix"
	case "envoy.config.rbac.v3.RBAC":
		return "action policies"
	case "envoy.config.rbac.v3.Policy":
		return "permissions principals"
	case "envoy.config.rbac.v3.Permission":
		return "and_rules or_rules any header url_path destination_ip destination_port destination_port_range metadata not_rule requested_server_name sourced_metadata uri_template"
	case "envoy.config.rbac.v3.SourcedMetadata":
		return "metadata_matcher metadata_source"
	case "envoy.config.rbac.v3.Permission.Set":
		return "rules"
	case "envoy.config.rbac.v3.Principal":
		return "and_ids or_ids any authenticated source_ip direct_remote_ip remote_ip header url_path metadata filter_state not_id sourced_metadata"
	case "envoy.config.rbac.v3.Principal.Set":
		return "ids"
	case "envoy.config.rbac.v3.Principal.Authenticated":
		return "principal_name"
	case "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig":
		return "path_template"
	case "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication":
		return "providers rules bypass_cors_preflight requirement_map strip_failure_response stat_prefix!"
	case "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig":
		return "disabled requirement_name"
	case "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider":
		return "issuer audiences subjects require_expiration max_lifetime local_jwks forward from_headers from_params from_cookies forward_payload_header pad_forward_payload_header payload_in_metadata header_in_metadata normalize_payload_in_metadata clock_skew_seconds jwt_cache_config! claim_to_headers clear_route_cache"
	case "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider.NormalizePayload":
		return "space_delimited_claims"
	case "envoy.extensions.filters.http.jwt_authn.v3.JwtHeader":
		return "name value_prefix"
	case "envoy.extensions.filters.http.jwt_authn.v3.JwtClaimToHeader":
		return "header_name claim_name"
	case "envoy.extensions.filters.http.jwt_authn.v3.RequirementRule":
		return "match requires requirement_name"
	case "envoy.extensions.filters.http.jwt_authn.v3.JwtRequirement":
		return "provider_name provider_and_audiences requires_any requires_all allow_missing_or_failed allow_missing"
	case "envoy.extensions.filters.http.jwt_authn.v3.ProviderWithAudiences":
		return "provider_name audiences"
	case "envoy.extensions.filters.http.jwt_authn.v3.JwtRequirementOrList", "envoy.extensions.filters.http.jwt_authn.v3.JwtRequirementAndList":
		return "requirements"
	}
	return ""
}

func externalFields(name protoreflect.FullName) string {
	switch name {
	case "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz":
		return "grpc_service http_service transport_api_version failure_mode_allow failure_mode_allow_header_add with_request_body clear_route_cache status_on_error filter_enabled_metadata stat_prefix! allowed_headers disallowed_headers charge_cluster_response_stats! emit_filter_state_stats!"
	case "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz":
		return "stat_prefix! grpc_service failure_mode_allow transport_api_version filter_enabled_metadata"
	case "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute":
		return "disabled"
	case "envoy.extensions.filters.http.ext_authz.v3.BufferSettings":
		return "max_request_bytes allow_partial_message pack_as_bytes"
	case "envoy.extensions.filters.http.ext_authz.v3.HttpService":
		return "server_uri path_prefix authorization_request authorization_response"
	case "envoy.extensions.filters.http.ext_authz.v3.AuthorizationRequest":
		return "headers_to_add"
	case "envoy.extensions.filters.http.ext_authz.v3.AuthorizationResponse":
		return "allowed_upstream_headers allowed_upstream_headers_to_append allowed_client_headers allowed_client_headers_on_success"
	case "envoy.type.matcher.v3.ListStringMatcher":
		return "patterns"
	case "envoy.type.v3.HttpStatus":
		return "code"
	case "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation":
		return "mutations"
	case "envoy.extensions.filters.http.header_mutation.v3.Mutations":
		return "request_mutations"
	case "envoy.config.common.mutation_rules.v3.HeaderMutation":
		return "append remove"
	}
	return ""
}
