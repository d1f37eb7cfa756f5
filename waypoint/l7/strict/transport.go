package strict

import "google.golang.org/protobuf/reflect/protoreflect"

func listenerFields(name protoreflect.FullName) string {
	switch name {
	case "envoy.config.listener.v3.Listener":
		return "name address additional_addresses stat_prefix use_original_dst filter_chains filter_chain_matcher default_filter_chain per_connection_buffer_limit_bytes metadata! drain_type listener_filters listener_filters_timeout continue_on_listener_filters_timeout traffic_direction access_log! enable_reuse_port connection_balance_config! internal_listener bind_to_port enable_mptcp ignore_global_conn_limit bypass_overload_manager socket_options! tcp_backlog_size max_connections_to_accept_per_socket_event"
	case "envoy.config.listener.v3.AdditionalAddress":
		return "address socket_options!"
	case "envoy.config.listener.v3.ListenerFilter":
		return "name typed_config filter_disabled"
	case "envoy.config.listener.v3.ListenerFilterChainMatchPredicate":
		return "or_match and_match not_match any_match destination_port_range"
	case "envoy.config.listener.v3.ListenerFilterChainMatchPredicate.MatchSet":
		return "rules"
	case "envoy.config.listener.v3.FilterChain":
		return "name filter_chain_match filters metadata! transport_socket"
	case "envoy.config.listener.v3.FilterChainMatch":
		return "destination_port prefix_ranges server_names transport_protocol application_protocols source_prefix_ranges direct_source_prefix_ranges"
	case "envoy.config.listener.v3.Filter":
		return "name typed_config"
	case "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext":
		return "common_tls_context require_client_certificate disable_stateless_session_resumption disable_stateful_session_resumption"
	}
	return ""
}

func clusterFields(name protoreflect.FullName) string {
	switch name {
	case "envoy.config.cluster.v3.Cluster":
		return "name alt_stat_name type eds_cluster_config connect_timeout per_connection_buffer_limit_bytes lb_policy load_assignment max_requests_per_connection circuit_breakers http_protocol_options http2_protocol_options common_http_protocol_options typed_extension_protocol_options dns_refresh_rate dns_jitter dns_failure_refresh_rate respect_dns_ttl dns_lookup_family outlier_detection cleanup_interval common_lb_config ring_hash_lb_config maglev_lb_config least_request_lb_config round_robin_lb_config original_dst_lb_config transport_socket transport_socket_matches metadata! upstream_connection_options close_connections_on_host_health_failure ignore_health_on_host_removal track_cluster_stats! wait_for_warm_on_init"
	case "envoy.config.cluster.v3.Cluster.EdsClusterConfig":
		return "eds_config! service_name"
	case "envoy.config.cluster.v3.Cluster.TransportSocketMatch":
		return "name match! transport_socket"
	case "envoy.config.cluster.v3.Cluster.OriginalDstLbConfig":
		return "upstream_port_override use_http_header metadata_key"
	case "envoy.type.metadata.v3.MetadataKey":
		return "key path"
	case "envoy.type.metadata.v3.MetadataKey.PathSegment":
		return "key"
	case "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig":
		return "choice_count slow_start_config"
	case "envoy.config.cluster.v3.Cluster.RoundRobinLbConfig":
		return "slow_start_config"
	case "envoy.config.cluster.v3.Cluster.SlowStartConfig":
		return "slow_start_window aggression min_weight_percent"
	case "envoy.config.core.v3.RuntimeDouble":
		return "default_value runtime_key!"
	case "envoy.config.cluster.v3.Cluster.RingHashLbConfig":
		return "minimum_ring_size maximum_ring_size hash_function"
	case "envoy.config.cluster.v3.Cluster.MaglevLbConfig":
		return "table_size"
	case "envoy.config.cluster.v3.Cluster.CommonLbConfig":
		return "healthy_panic_threshold locality_weighted_lb_config zone_aware_lb_config! update_merge_window! ignore_new_hosts_until_first_hc consistent_hashing_lb_config override_host_status"
	case "envoy.config.core.v3.HealthStatusSet":
		return "statuses"
	case "envoy.config.cluster.v3.Cluster.CommonLbConfig.ConsistentHashingLbConfig":
		return "use_hostname_for_hashing"
	case "envoy.config.cluster.v3.CircuitBreakers":
		return "thresholds per_host_thresholds"
	case "envoy.config.cluster.v3.CircuitBreakers.Thresholds":
		return "priority max_connections max_pending_requests max_requests max_retries retry_budget track_remaining max_connection_pools"
	case "envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget":
		return "budget_percent min_retry_concurrency"
	case "envoy.config.cluster.v3.OutlierDetection":
		return "consecutive_5xx interval base_ejection_time max_ejection_percent enforcing_consecutive_5xx enforcing_success_rate consecutive_gateway_failure enforcing_consecutive_gateway_failure split_external_local_origin_errors consecutive_local_origin_failure enforcing_consecutive_local_origin_failure enforcing_local_origin_success_rate max_ejection_time max_ejection_time_jitter"
	case "envoy.config.cluster.v3.UpstreamConnectionOptions":
		return "tcp_keepalive set_local_interface_name_on_upstream_connections!"
	case "envoy.config.core.v3.TcpKeepalive":
		return "keepalive_probes keepalive_time keepalive_interval"
	case "envoy.extensions.upstreams.http.v3.HttpProtocolOptions":
		return "common_http_protocol_options explicit_http_config use_downstream_protocol_config auto_config"
	case "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig", "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig",
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig":
		return "http_protocol_options http2_protocol_options"
	}
	return endpointFields(name)
}

func endpointFields(name protoreflect.FullName) string {
	switch name {
	case "envoy.config.endpoint.v3.ClusterLoadAssignment":
		return "cluster_name endpoints policy"
	case "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy":
		return "overprovisioning_factor weighted_priority_health"
	case "envoy.config.endpoint.v3.LocalityLbEndpoints":
		return "locality lb_endpoints load_balancing_weight priority metadata!"
	case "envoy.config.core.v3.Locality":
		return "region zone sub_zone"
	case "envoy.config.endpoint.v3.LbEndpoint":
		return "endpoint health_status metadata! load_balancing_weight"
	case "envoy.config.endpoint.v3.Endpoint":
		return "address hostname observability_name!"
	case "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport":
		return "passthrough_metadata! transport_socket"
	case "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport":
		return "config transport_socket"
	case "envoy.config.core.v3.ProxyProtocolConfig":
		return "version"
	case "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext":
		return "common_tls_context sni max_session_keys auto_host_sni auto_sni_san_validation"
	case "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext":
		return "tls_params tls_certificates tls_certificate_sds_secret_configs validation_context validation_context_sds_secret_config combined_validation_context alpn_protocols"
	case "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext":
		return "default_validation_context validation_context_sds_secret_config"
	case "envoy.extensions.transport_sockets.tls.v3.TlsParameters":
		// Curves: crypto/tls has a safe choice of its own.
		return "tls_minimum_protocol_version tls_maximum_protocol_version cipher_suites ecdh_curves!"
	case "envoy.extensions.transport_sockets.tls.v3.TlsCertificate":
		return "certificate_chain private_key"
	case "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig":
		return "name sds_config!"
	case "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext":
		return "trusted_ca match_typed_subject_alt_names match_subject_alt_names verify_certificate_spki verify_certificate_hash crl only_verify_leaf_cert_crl"
	case "envoy.extensions.transport_sockets.tls.v3.Secret":
		return "name tls_certificate validation_context"
	case "envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher":
		return "san_type matcher"
	}
	return ""
}
