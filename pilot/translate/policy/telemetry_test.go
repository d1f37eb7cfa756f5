package policy

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	telemetryapi "istio.io/api/telemetry/v1alpha1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const telemetryMesh = `
rootNamespace: istio-system
accessLogFile: /dev/stdout
extensionProviders:
- {name: otel, opentelemetry: {service: otel.observability.svc.cluster.local, port: 4317, maxTagLength: 99, grpc: {timeout: 3s, initialMetadata: [{name: x-token, value: t}]}}}
- {name: otel-http, opentelemetry: {service: otel.observability.svc.cluster.local, port: 4318, http: {path: /v1/traces, timeout: 2s, headers: [{name: x-token, value: t}]}}}
- {name: zipkin, zipkin: {service: zipkin.observability.svc.cluster.local, port: 9411}}
- {name: lost, zipkin: {service: nowhere.example.com, port: 9411}}
- {name: dog, datadog: {service: dog.observability.svc.cluster.local, port: 1}}
- {name: lines, envoyFileAccessLog: {path: /tmp/log, logFormat: {text: "%RESPONSE_CODE%"}}}
- {name: odd, envoyFileAccessLog: {path: /tmp/log, logFormat: {text: "%RESPONSE_COD%"}}}
- {name: als, envoyOtelAls: {service: otel.observability.svc.cluster.local, port: 4317, logFormat: {text: "%PROTOCOL%", labels: {code: "%RESPONSE_CODE%"}}}}
- {name: prom, prometheus: {}}
`

func findNone(service string, port uint32) (Backend, error) {
	if strings.HasPrefix(service, "nowhere") {
		return Backend{}, fmt.Errorf("service: there is no service %q", service)
	}
	return Backend{Cluster: "outbound|" + strconv.Itoa(int(port)) + "||" + service, Host: service}, nil
}

// told makes the telemetry of reviews' chain at its waypoint, or of a gateway. Each object is "NAMESPACE TARGET SPEC".
func told(t *testing.T, mesh string, gateway bool, objects ...string) (Telemetry, []string) {
	t.Helper()
	in := TelemetryInput{Mesh: meshOf(t, mesh), Find: findNone, Target: Target{
		Proxy: Waypoint, RootNamespace: "istio-system", Namespace: "default", Gateway: "waypoint",
		Services: []ServiceRef{{KindService, "default", "reviews"}},
	}}
	if gateway {
		in.Target = Target{Proxy: Gateway, RootNamespace: "istio-system", Namespace: "default", Gateway: "edge", Labels: map[string]string{"app": "edge"}}
	}
	var problems []string
	for i, text := range objects {
		parts := strings.SplitN(text, " ", 3)
		o := &telemetryv1.Telemetry{ObjectMeta: metav1.ObjectMeta{Namespace: parts[0], Name: parts[1], CreationTimestamp: metav1.Unix(int64(i), 0)}}
		raw, err := yaml.YAMLToJSON([]byte("{" + parts[2] + "}"))
		if err != nil {
			t.Fatal(err)
		}
		if err := protojson.Unmarshal(raw, &o.Spec); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		in.Objects = append(in.Objects, o)
		problems = append(problems, TelemetryProblems(in.Mesh, o, findNone)...)
	}
	out := NewTelemetry(in)
	if out.Tracing != nil {
		if err := out.Tracing.ValidateAll(); err != nil {
			t.Error(err)
		}
	}
	for _, l := range out.AccessLogs {
		if err := l.ValidateAll(); err != nil {
			t.Error(err)
		}
	}
	return out, problems
}

const (
	toReviews  = `targetRefs: [{kind: Service, group: "", name: reviews}], `
	toRatings  = `targetRefs: [{kind: Service, group: "", name: ratings}], `
	toWaypoint = `targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}], `
)

func TestTracing(t *testing.T) {
	for name, tt := range map[string]struct {
		mesh    string
		gateway bool
		objects []string
		holds   string // words; -word must not be there
		problem string
	}{
		"nothing":               {},
		"by default":            {mesh: "defaultProviders: {tracing: [otel]}", holds: "OpenTelemetryConfig 4317 random_sampling:{value:1} timeout:{seconds:3} x-token max_path_tag_length:{value:99} FILTER_STATE(upstream_peer:FIELD:workload) istio.downstream.workload"},
		"of the mesh":           {objects: []string{`istio-system mesh tracing: [{providers: [{name: otel-http}], randomSamplingPercentage: 20.5}]`}, holds: "http_uri /v1/traces value:20.5"},
		"zipkin":                {objects: []string{`istio-system mesh tracing: [{providers: [{name: zipkin}]}]`}, holds: "ZipkinConfig /api/v2/spans HTTP_JSON trace_id_128bit:true"},
		"sampling of the mesh":  {mesh: "defaultProviders: {tracing: [otel]}\ndefaultConfig: {tracing: {sampling: 33, maxPathTagLength: 5}}", holds: "random_sampling:{value:33}"},
		"as it was before":      {mesh: "enableTracing: true\ndefaultConfig: {tracing: {zipkin: {address: 'zipkin.observability:9411'}}}", holds: "ZipkinConfig zipkin.observability"},
		"of a namespace":        {objects: []string{`istio-system mesh tracing: [{providers: [{name: otel}], randomSamplingPercentage: 20}]`, `default ns tracing: [{randomSamplingPercentage: 30}]`}, holds: "value:30 OpenTelemetryConfig"},
		"of another namespace":  {objects: []string{`istio-system mesh tracing: [{providers: [{name: otel}], randomSamplingPercentage: 20}]`, `other ns tracing: [{randomSamplingPercentage: 30}]`}, holds: "value:20"},
		"of the service":        {objects: []string{`istio-system mesh tracing: [{providers: [{name: otel}]}]`, `default a ` + toReviews + `tracing: [{providers: [{name: zipkin}]}]`}, holds: "ZipkinConfig"},
		"of another service":    {objects: []string{`istio-system mesh tracing: [{providers: [{name: otel}]}]`, `default a ` + toRatings + `tracing: [{providers: [{name: zipkin}]}]`}, holds: "-ZipkinConfig OpenTelemetryConfig"},
		"of the waypoint":       {objects: []string{`default a ` + toWaypoint + `tracing: [{providers: [{name: zipkin}]}]`}, holds: "ZipkinConfig"},
		"of all waypoints":      {objects: []string{`istio-system a targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}], tracing: [{providers: [{name: zipkin}]}]`}, holds: "ZipkinConfig"},
		"selectors are of pods": {objects: []string{`default a selector: {matchLabels: {app: edge}}, tracing: [{providers: [{name: zipkin}]}]`}},
		"of a gateway's pods":   {gateway: true, objects: []string{`default a selector: {matchLabels: {app: edge}}, tracing: [{providers: [{name: zipkin}]}]`}, holds: "ZipkinConfig"},
		"off":                   {objects: []string{`istio-system mesh tracing: [{providers: [{name: otel}]}]`, `default ns tracing: [{disableSpanReporting: true}]`}},
		"on again":              {objects: []string{`istio-system mesh tracing: [{providers: [{name: otel}], disableSpanReporting: true}]`, `default ns tracing: [{disableSpanReporting: false}]`}, holds: "OpenTelemetryConfig"},
		"of clients":            {objects: []string{`istio-system mesh tracing: [{match: {mode: CLIENT}, providers: [{name: otel}]}]`}},
		"of clients, at one":    {gateway: true, objects: []string{`istio-system mesh tracing: [{match: {mode: CLIENT}, providers: [{name: otel}]}]`}, holds: "OpenTelemetryConfig"},
		"tags": {
			objects: []string{`istio-system mesh tracing: [{providers: [{name: otel}], enableIstioTags: false, disableContextPropagation: true, useRequestIdForTraceSampling: false,
  customTags: {a: {literal: {value: v}}, b: {environment: {name: HOME, defaultValue: d}}, c: {header: {name: x-h}}, d: {formatter: {value: "%RESPONSE_CODE%"}}}}]`},
			holds: `-FILTER_STATE literal:{value:"v"} environment:{name:"HOME" x-h %RESPONSE_CODE% no_context_propagation:true`,
		},
		"the oldest counts":       {objects: []string{`istio-system a tracing: [{providers: [{name: otel}], randomSamplingPercentage: 11}]`, `istio-system b tracing: [{randomSamplingPercentage: 22}]`}, holds: "value:11"},
		"a provider that is none": {objects: []string{`istio-system a tracing: [{providers: [{name: what}]}]`}, problem: `spec.tracing[0].providers[0]: meshConfig.extensionProviders has no provider "what"`},
		"another kind":            {objects: []string{`istio-system a tracing: [{providers: [{name: dog}]}]`}, problem: "none of opentelemetry and zipkin"},
		"no service":              {objects: []string{`istio-system a tracing: [{providers: [{name: lost}]}]`}, problem: `the provider "lost": service: there is no service "nowhere.example.com"`},
		"a wrong format":          {objects: []string{`istio-system a tracing: [{providers: [{name: otel}], customTags: {x: {formatter: {value: "%WHAT%"}}}}]`}, holds: "-WHAT", problem: "spec.tracing[0].customTags.x.formatter.value: the operator %WHAT% is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			out, problems := told(t, telemetryMesh+tt.mesh, tt.gateway, tt.objects...)
			if (out.Tracing != nil) != (tt.holds != "") {
				t.Fatalf("tracing %v", out.Tracing)
			}
			text := ""
			if out.Tracing != nil {
				text = strings.Join(strings.Fields(protoText(out.Tracing)), " ")
			}
			for word := range strings.FieldsSeq(tt.holds) {
				missing, not := strings.CutPrefix(word, "-")
				if strings.Contains(text, missing) == not {
					t.Errorf("%q in %s", word, text)
				}
			}
			if got := strings.Join(problems, "; "); !strings.Contains(got, tt.problem) || tt.problem == "" && got != "" {
				t.Errorf("problems %q, want %q", got, tt.problem)
			}
		})
	}
}

func TestTelemetryLogs(t *testing.T) {
	for name, tt := range map[string]struct {
		mesh    string
		objects []string
		want    []string // words of each log
		problem string
	}{
		"of the mesh":     {want: []string{"/dev/stdout"}},
		"off":             {objects: []string{`istio-system m accessLogging: [{disabled: true}]`}},
		"off in one":      {objects: []string{`default m accessLogging: [{disabled: true}]`}},
		"on in one":       {objects: []string{`istio-system m accessLogging: [{disabled: true}]`, `default m accessLogging: [{disabled: false}]`}, want: []string{"/dev/stdout"}},
		"another file":    {objects: []string{`istio-system m accessLogging: [{providers: [{name: lines}]}]`}, want: []string{"/tmp/log"}},
		"two":             {objects: []string{`istio-system m accessLogging: [{providers: [{name: lines}, {name: envoy}]}]`}, want: []string{"/tmp/log", "/dev/stdout"}},
		"one of two off":  {objects: []string{`istio-system m accessLogging: [{providers: [{name: lines}, {name: envoy}]}]`, `default m accessLogging: [{providers: [{name: lines}], disabled: true}]`}},
		"replaced":        {objects: []string{`istio-system m accessLogging: [{providers: [{name: lines}]}]`, `default m accessLogging: [{providers: [{name: envoy}]}]`}, want: []string{"/dev/stdout"}},
		"filtered":        {objects: []string{`istio-system m accessLogging: [{filter: {expression: "response.code >= 500"}}]`}, want: []string{"/dev/stdout response.code extension_filters.cel"}},
		"filtered later":  {objects: []string{`istio-system m accessLogging: [{providers: [{name: lines}]}]`, `default m ` + toReviews + `accessLogging: [{filter: {expression: "response.code >= 500"}}]`}, want: []string{"/tmp/log response.code"}},
		"a wrong filter":  {objects: []string{`istio-system m accessLogging: [{filter: {expression: "respons.code >= 500"}}]`}, problem: "spec.accessLogging[0].filter.expression: line 1, column 1: undeclared reference to 'respons'"},
		"of clients":      {objects: []string{`istio-system m accessLogging: [{match: {mode: CLIENT}, disabled: true}]`}, want: []string{"/dev/stdout"}},
		"of servers":      {objects: []string{`istio-system m accessLogging: [{match: {mode: SERVER}, disabled: true}]`}},
		"to a collector":  {objects: []string{`istio-system m accessLogging: [{providers: [{name: als}]}]`}, want: []string{"OpenTelemetryAccessLogConfig otel_envoy_accesslog %PROTOCOL% %RESPONSE_CODE% outbound|4317"}},
		"an odd operator": {objects: []string{`istio-system m accessLogging: [{providers: [{name: odd}]}]`}, problem: "the operator %RESPONSE_COD% is not known"},
		"no such":         {objects: []string{`istio-system m accessLogging: [{providers: [{name: what}]}]`}, problem: `no provider "what"`},
		"no logs at all":  {objects: []string{`istio-system m accessLogging: [{providers: [{name: dog}]}]`}, problem: "none of envoyFileAccessLog and envoyOtelAls"},
	} {
		t.Run(name, func(t *testing.T) {
			out, problems := told(t, telemetryMesh+tt.mesh, false, tt.objects...)
			if len(out.AccessLogs) != len(tt.want) {
				t.Fatalf("%d logs, want %d: %v", len(out.AccessLogs), len(tt.want), out.AccessLogs)
			}
			for i, l := range out.AccessLogs {
				text := protoText(l)
				for word := range strings.FieldsSeq(tt.want[i]) {
					if !strings.Contains(text, word) {
						t.Errorf("no %q in %s", word, text)
					}
				}
			}
			if got := strings.Join(problems, "; "); !strings.Contains(got, tt.problem) || tt.problem == "" && got != "" {
				t.Errorf("problems %q, want %q", got, tt.problem)
			}
		})
	}
}

func TestTelemetryMetrics(t *testing.T) {
	for name, tt := range map[string]struct {
		objects []string
		want    string
		problem string
	}{
		"nothing":         {want: "null"},
		"all off":         {objects: []string{`istio-system m metrics: [{providers: [{name: prometheus}], overrides: [{match: {metric: ALL_METRICS}, disabled: true}]}]`}, want: `"istio_tcp_sent_bytes_total":{"disabled":true}`},
		"one off":         {objects: []string{`istio-system m metrics: [{overrides: [{match: {metric: REQUEST_SIZE}, disabled: true}]}]`}, want: `{"metrics":{"istio_request_bytes":{"disabled":true}}}`},
		"on again":        {objects: []string{`istio-system m metrics: [{overrides: [{match: {metric: REQUEST_SIZE}, disabled: true}]}]`, `default m metrics: [{overrides: [{match: {metric: REQUEST_SIZE}, disabled: false}]}]`}, want: "null"},
		"tags":            {objects: []string{`istio-system m metrics: [{providers: [{name: prom}], overrides: [{match: {metric: REQUEST_COUNT}, tagOverrides: {host: {value: request.host}, response_flags: {operation: REMOVE}}}]}]`}, want: `{"metrics":{"istio_requests_total":{"tags":{"host":"request.host","response_flags":null}}}}`},
		"of clients":      {objects: []string{`istio-system m metrics: [{overrides: [{match: {mode: CLIENT, metric: REQUEST_SIZE}, disabled: true}]}]`}, want: "null"},
		"interval":        {objects: []string{`istio-system m metrics: [{reportingInterval: 15s}]`}, want: `{"reporting_interval_seconds":15}`},
		"a wrong value":   {objects: []string{`istio-system m metrics: [{overrides: [{match: {metric: REQUEST_COUNT}, tagOverrides: {host: {value: "reques.host"}}}]}]`}, want: "null", problem: "spec.metrics[0].overrides[0].tagOverrides.host.value: line 1"},
		"another backend": {objects: []string{`istio-system m metrics: [{providers: [{name: zipkin}], overrides: [{disabled: true}]}]`}, want: "null", problem: "is not a prometheus provider"},
		"no such metric":  {objects: []string{`istio-system m metrics: [{overrides: [{match: {customMetric: mine}, disabled: true}]}]`}, want: "null", problem: `there is no metric "mine"`},
	} {
		t.Run(name, func(t *testing.T) {
			out, problems := told(t, telemetryMesh, false, tt.objects...)
			raw := []byte("null")
			if out.Metrics != nil {
				var err error
				if raw, err = out.Metrics.MarshalJSON(); err != nil {
					t.Fatal(err)
				}
			}
			if got := strings.ReplaceAll(string(raw), ": ", ":"); !strings.Contains(strings.ReplaceAll(got, ", ", ","), tt.want) {
				t.Errorf("%s, want %s", got, tt.want)
			}
			if got := strings.Join(problems, "; "); !strings.Contains(got, tt.problem) || tt.problem == "" && got != "" {
				t.Errorf("problems %q, want %q", got, tt.problem)
			}
		})
	}
	for n := range telemetryapi.MetricSelector_IstioMetric_name {
		if len(metricNames(telemetryapi.MetricSelector_IstioMetric(n))) == 0 {
			t.Errorf("metric %d has no name", n)
		}
	}
}

func TestFormatProblems(t *testing.T) {
	for format, want := range map[string]string{
		DefaultLogFormat: "", "100%% %START_TIME(%s.%3f)% %REQ(A?B):10%": "", "%CEL(request.path)%": "", "%FILTER_STATE(a:FIELD:b)%": "",
		"%NOTHING%": "the operator %NOTHING% is not known", "%REQ%": "parameters are missing", "%CEL(reques.path)%": "undeclared reference", "50%": "not closed", "%REQ(a%": "not closed",
	} {
		if got := strings.Join(FormatProblems(format), "; "); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%q: %q, want %q", format, got, want)
		}
	}
}

func FuzzFormat(f *testing.F) {
	for _, s := range []string{DefaultLogFormat, "%CEL(request.path)%", "%START_TIME(%s.%3f)%", "%%%"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) { FormatProblems(s) })
}
