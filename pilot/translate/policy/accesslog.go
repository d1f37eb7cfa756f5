package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/cel/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/metadata/v3"
	reqwithoutqueryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/req_without_query/v3"
	"google.golang.org/protobuf/types/known/structpb"
	meshapi "istio.io/api/mesh/v1alpha1"
)

const (
	fileAccessLogName = "envoy.access_loggers.file"
	stdout            = "/dev/stdout"
	// envoyProvider is the provider of access logs that exists without being configured.
	envoyProvider = "envoy"
)

// DefaultLogFormat is what one line of a text access log has.
const DefaultLogFormat = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ` +
	`%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% ` +
	`%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" ` +
	`"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% ` +
	`%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%` + "\n"

// DefaultJSONFormat is what one object of a JSON access log has.
func DefaultJSONFormat() map[string]string {
	return map[string]string{
		"start_time":                        "%START_TIME%",
		"route_name":                        "%ROUTE_NAME%",
		"method":                            "%REQ(:METHOD)%",
		"path":                              "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
		"protocol":                          "%PROTOCOL%",
		"response_code":                     "%RESPONSE_CODE%",
		"response_flags":                    "%RESPONSE_FLAGS%",
		"response_code_details":             "%RESPONSE_CODE_DETAILS%",
		"connection_termination_details":    "%CONNECTION_TERMINATION_DETAILS%",
		"bytes_received":                    "%BYTES_RECEIVED%",
		"bytes_sent":                        "%BYTES_SENT%",
		"duration":                          "%DURATION%",
		"upstream_service_time":             "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
		"x_forwarded_for":                   "%REQ(X-FORWARDED-FOR)%",
		"user_agent":                        "%REQ(USER-AGENT)%",
		"request_id":                        "%REQ(X-REQUEST-ID)%",
		"authority":                         "%REQ(:AUTHORITY)%",
		"upstream_host":                     "%UPSTREAM_HOST%",
		"upstream_cluster":                  "%UPSTREAM_CLUSTER_RAW%",
		"upstream_local_address":            "%UPSTREAM_LOCAL_ADDRESS%",
		"downstream_local_address":          "%DOWNSTREAM_LOCAL_ADDRESS%",
		"downstream_remote_address":         "%DOWNSTREAM_REMOTE_ADDRESS%",
		"requested_server_name":             "%REQUESTED_SERVER_NAME%",
		"upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	}
}

// AccessLogs returns the access logs that the mesh configuration asks for: those of defaultProviders.accessLogging, else
// accessLogFile. What AccessLogProblems names is left out.
func AccessLogs(mesh *meshapi.MeshConfig) []*accesslogv3.AccessLog {
	logs, _ := accessLogs(mesh)
	return logs
}

// AccessLogProblems says which parts of the mesh configuration about access logs are not honoured.
func AccessLogProblems(mesh *meshapi.MeshConfig) []string {
	_, problems := accessLogs(mesh)
	t := &telemetry{mesh: mesh, find: func(string, uint32) (Backend, error) { return Backend{Cluster: "x", Host: "x"}, nil }}
	for _, name := range t.defaultLogs() {
		_, more := t.log(name)
		problems = append(problems, more...)
	}
	return problems
}

func accessLogs(mesh *meshapi.MeshConfig) (logs []*accesslogv3.AccessLog, problems []string) {
	if mesh.GetEnableEnvoyAccessLogService() {
		problems = append(problems, "enableEnvoyAccessLogService: access logs are written to files only")
	}
	names := mesh.GetDefaultProviders().GetAccessLogging()
	if len(names) == 0 {
		if mesh.GetAccessLogFile() == "" {
			return nil, problems
		}
		format, problem := meshFormat(mesh)
		if problem != "" {
			problems = append(problems, problem)
		}
		return []*accesslogv3.AccessLog{fileLog(mesh.GetAccessLogFile(), format)}, problems
	}
	for _, name := range names {
		path, format, problem := provider(mesh, name)
		if problem != "" {
			problems = append(problems, problem)
		}
		if path != "" {
			logs = append(logs, fileLog(path, format))
		}
	}
	return logs, problems
}

// provider returns an empty path for one that cannot be used.
func provider(mesh *meshapi.MeshConfig, name string) (path string, format *corev3.SubstitutionFormatString, problem string) {
	all := mesh.GetExtensionProviders()
	i := slices.IndexFunc(all, func(p *meshapi.MeshConfig_ExtensionProvider) bool { return p.GetName() == name })
	if i < 0 {
		if name != envoyProvider {
			return "", nil, fmt.Sprintf("defaultProviders.accessLogging: there is no extension provider %q", name)
		}
		format, problem = meshFormat(mesh)
		return orDefault(mesh.GetAccessLogFile(), stdout), format, problem
	}
	file := all[i].GetEnvoyFileAccessLog()
	if file == nil {
		return "", nil, fmt.Sprintf("defaultProviders.accessLogging: the extension provider %q is not an envoyFileAccessLog", name)
	}
	switch labels := file.GetLogFormat().GetLabels(); {
	case labels != nil && len(labels.GetFields()) > 0:
		format = jsonFormat(labels)
	case labels != nil:
		format = jsonFormat(defaultJSON())
	default:
		format = textFormat(orDefault(file.GetLogFormat().GetText(), DefaultLogFormat))
	}
	format.OmitEmptyValues = file.GetOmitEmptyValues()
	return orDefault(file.GetPath(), stdout), format, ""
}

func meshFormat(mesh *meshapi.MeshConfig) (format *corev3.SubstitutionFormatString, problem string) {
	if mesh.GetAccessLogEncoding() == meshapi.MeshConfig_TEXT {
		return textFormat(orDefault(mesh.GetAccessLogFormat(), DefaultLogFormat)), ""
	}
	if mesh.GetAccessLogFormat() == "" {
		return jsonFormat(defaultJSON()), ""
	}
	fields := &structpb.Struct{}
	if err := fields.UnmarshalJSON([]byte(mesh.GetAccessLogFormat())); err != nil {
		return jsonFormat(defaultJSON()), "accessLogFormat: not a JSON object, as accessLogEncoding JSON needs; the default is used"
	}
	return jsonFormat(fields), ""
}

func defaultJSON() *structpb.Struct {
	out := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for k, v := range DefaultJSONFormat() {
		out.Fields[k] = structpb.NewStringValue(v)
	}
	return out
}

func textFormat(line string) *corev3.SubstitutionFormatString {
	if !strings.HasSuffix(line, "\n") {
		line += "\n"
	}
	return &corev3.SubstitutionFormatString{
		Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: line},
		}},
		Formatters: formatters(line),
	}
}

func jsonFormat(fields *structpb.Struct) *corev3.SubstitutionFormatString {
	text, err := json.Marshal(fields.AsMap())
	if err != nil {
		text = nil // numbers that JSON does not have; there are no operators in those
	}
	return &corev3.SubstitutionFormatString{
		Format:     &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: fields},
		Formatters: formatters(string(text)),
	}
}

// formatters are the extensions that a format's operators need.
func formatters(format string) []*corev3.TypedExtensionConfig {
	var out []*corev3.TypedExtensionConfig
	if strings.Contains(format, "%REQ_WITHOUT_QUERY(") {
		out = append(out, &corev3.TypedExtensionConfig{Name: "envoy.formatter.req_without_query", TypedConfig: mustAny(&reqwithoutqueryv3.ReqWithoutQuery{})})
	}
	if strings.Contains(format, "%METADATA(") {
		out = append(out, &corev3.TypedExtensionConfig{Name: "envoy.formatter.metadata", TypedConfig: mustAny(&metadatav3.Metadata{})})
	}
	if strings.Contains(format, "%CEL(") {
		out = append(out, &corev3.TypedExtensionConfig{Name: "envoy.formatter.cel", TypedConfig: mustAny(&celv3.Cel{})})
	}
	return out
}

func fileLog(path string, format *corev3.SubstitutionFormatString) *accesslogv3.AccessLog {
	return &accesslogv3.AccessLog{Name: fileAccessLogName, ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: mustAny(&filelogv3.FileAccessLog{
		Path: path, AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: format},
	})}}
}

func orDefault(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}
