package strict

import "google.golang.org/protobuf/reflect/protoreflect"

func telemetryFields(name protoreflect.FullName) string {
	switch name {
	case "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing":
		return "client_sampling random_sampling overall_sampling max_path_tag_length custom_tags provider spawn_upstream_span no_context_propagation"
	case "envoy.config.trace.v3.Tracing.Http":
		return "name typed_config"
	case "envoy.config.trace.v3.OpenTelemetryConfig":
		return "grpc_service http_service service_name max_cache_size! set_telemetry_sdk_resource_attributes! set_service_name_resource_attribute! set_instrumentation_scope!"
	case "envoy.config.trace.v3.ZipkinConfig":
		return "collector_cluster collector_endpoint trace_id_128bit shared_span_context collector_endpoint_version collector_hostname trace_context_option collector_service"
	case "envoy.config.core.v3.GrpcService":
		return "envoy_grpc timeout initial_metadata"
	case "envoy.config.core.v3.GrpcService.EnvoyGrpc":
		return "cluster_name authority"
	case "envoy.config.core.v3.HttpService":
		return "http_uri request_headers_to_add"
	case "envoy.config.core.v3.HttpUri":
		return "uri cluster timeout"
	case "envoy.type.tracing.v3.CustomTag":
		return "tag literal environment request_header value"
	case "envoy.type.tracing.v3.CustomTag.Literal":
		return "value"
	case "envoy.type.tracing.v3.CustomTag.Environment", "envoy.type.tracing.v3.CustomTag.Header":
		return "name default_value"
	}
	return ""
}
