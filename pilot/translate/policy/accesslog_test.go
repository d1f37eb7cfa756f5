package policy

import (
	"strings"
	"testing"

	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	meshapi "istio.io/api/mesh/v1alpha1"
	"sigs.k8s.io/yaml"
)

func meshOf(t *testing.T, text string) *meshapi.MeshConfig {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m := &meshapi.MeshConfig{}
	if err := protojson.Unmarshal(raw, m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAccessLogs(t *testing.T) {
	const providers = `extensionProviders: [{name: mine, envoyFileAccessLog: {path: /tmp/log, logFormat: {text: "%RESPONSE_CODE%"}, omitEmptyValues: true}},
 {name: json, envoyFileAccessLog: {logFormat: {labels: {code: "%RESPONSE_CODE%"}}}}, {name: default-json, envoyFileAccessLog: {logFormat: {labels: {}}}},
 {name: remote, envoyHttpAls: {service: x.default.svc.cluster.local, port: 1}}]` + "\n"
	tests := []struct {
		mesh    string
		paths   string
		holds   []string
		problem string
	}{
		{mesh: "{}"},
		{mesh: "{accessLogFile: /dev/stdout}", paths: "/dev/stdout", holds: []string{`%ROUTE_NAME%\n"`, "text_format_source"}},
		{mesh: "{accessLogFile: /dev/stdout, accessLogFormat: 'x %PROTOCOL%'}", paths: "/dev/stdout", holds: []string{`x %PROTOCOL%\n"`}},
		{mesh: "{accessLogFile: /dev/stdout, accessLogEncoding: JSON}", paths: "/dev/stdout", holds: []string{"json_format", "upstream_transport_failure_reason"}},
		{mesh: "{accessLogFile: /x, accessLogEncoding: JSON, accessLogFormat: '{\"a\": \"%CEL(request.path)%\"}'}", paths: "/x", holds: []string{"envoy.formatter.cel"}},
		{mesh: "{accessLogFile: /x, accessLogEncoding: JSON, accessLogFormat: 'text'}", paths: "/x", holds: []string{"route_name"}, problem: "not a JSON object"},
		{mesh: "{accessLogFile: /x, accessLogFormat: '%REQ_WITHOUT_QUERY(:PATH)% %METADATA(ROUTE:istio)%'}", paths: "/x", holds: []string{"envoy.formatter.req_without_query", "envoy.formatter.metadata"}},
		{mesh: providers + "defaultProviders: {accessLogging: [mine, json, default-json, envoy]}", paths: "/tmp/log /dev/stdout /dev/stdout /dev/stdout", holds: []string{`"%RESPONSE_CODE%\n"`, "omit_empty_values", `"code":`}},
		{mesh: providers + "defaultProviders: {accessLogging: [remote, absent]}", problem: "not an envoyFileAccessLog"},
		{mesh: "{enableEnvoyAccessLogService: true}", problem: "files only"},
	}
	for _, tt := range tests {
		mesh := meshOf(t, tt.mesh)
		var paths []string
		text := ""
		for _, l := range AccessLogs(mesh) {
			if err := l.ValidateAll(); err != nil {
				t.Errorf("%s: %v", tt.mesh, err)
			}
			file := &filelogv3.FileAccessLog{}
			if err := l.GetTypedConfig().UnmarshalTo(file); err != nil {
				t.Fatal(err)
			}
			if err := file.ValidateAll(); err != nil {
				t.Errorf("%s: %v", tt.mesh, err)
			}
			paths = append(paths, file.GetPath())
			raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(file)
			if err != nil {
				t.Fatal(err)
			}
			text += string(raw)
		}
		if got := strings.Join(paths, " "); got != tt.paths {
			t.Errorf("%s: logs to %q, want %q", tt.mesh, got, tt.paths)
		}
		for _, h := range tt.holds {
			if !strings.Contains(text, h) {
				t.Errorf("%s: %s lacks %s", tt.mesh, text, h)
			}
		}
		problems := strings.Join(AccessLogProblems(mesh), "; ")
		if (problems == "") != (tt.problem == "") || !strings.Contains(problems, tt.problem) {
			t.Errorf("%s: problems %q, want %q", tt.mesh, problems, tt.problem)
		}
	}
}

func TestNormalizePath(t *testing.T) {
	tests := map[string]struct {
		normalize, merge bool
		escaped          hcmv3.HttpConnectionManager_PathWithEscapedSlashesAction
	}{
		"{}": {normalize: true},
		"{pathNormalization: {normalization: DEFAULT}}":                  {normalize: true},
		"{pathNormalization: {normalization: BASE}}":                     {normalize: true},
		"{pathNormalization: {normalization: NONE}}":                     {},
		"{pathNormalization: {normalization: MERGE_SLASHES}}":            {normalize: true, merge: true},
		"{pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}}": {normalize: true, merge: true, escaped: hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD},
	}
	for mesh, want := range tests {
		hcm := &hcmv3.HttpConnectionManager{}
		NormalizePath(meshOf(t, mesh), hcm)
		if hcm.GetNormalizePath().GetValue() != want.normalize || hcm.GetMergeSlashes() != want.merge || hcm.GetPathWithEscapedSlashesAction() != want.escaped {
			t.Errorf("%s: %v", mesh, hcm)
		}
	}
}
