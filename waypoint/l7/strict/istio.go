package strict

import "google.golang.org/protobuf/reflect/protoreflect"

// istioFields lists what only Istio's own build of Envoy has. Istio's control plane sends it to every waypoint.
func istioFields(name protoreflect.FullName) string {
	switch name {
	case "udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct":
		return "type_url value!"
	case "stats.PluginConfig":
		return "disable_host_header_fallback! tcp_reporting_duration! reporter! rotation_interval! graceful_deletion_interval!"
	}
	return ""
}
