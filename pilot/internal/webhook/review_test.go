package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

func newServer(t testing.TB) *Server {
	t.Helper()
	s, err := New(Config{Namespace: "istio-system", Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ask sends an object for review, as the API server does.
func ask(t testing.TB, s *Server, operation admissionv1.Operation, object string) *admissionv1.AdmissionResponse {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(object))
	if err != nil {
		t.Fatal(err)
	}
	review := &admissionv1.AdmissionReview{Request: &admissionv1.AdmissionRequest{UID: "u", Operation: operation, Namespace: "ns", Name: "obj"}}
	review.APIVersion, review.Kind = "admission.k8s.io/v1", "AdmissionReview"
	if operation == admissionv1.Delete {
		review.Request.OldObject = runtime.RawExtension{Raw: raw}
	} else {
		review.Request.Object = runtime.RawExtension{Raw: raw}
	}
	var kind struct{ Kind string }
	if err := json.Unmarshal(raw, &kind); err != nil {
		t.Fatal(err)
	}
	review.Request.Kind.Kind = kind.Kind
	body, err := json.Marshal(review)
	if err != nil {
		t.Fatal(err)
	}
	w := post(s, body)
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	out := &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(w.Body.Bytes(), out); err != nil || out.Response == nil || out.Response.UID != "u" || out.Kind != "AdmissionReview" {
		t.Fatalf("%v: %s", err, w.Body)
	}
	return out.Response
}

func post(s *Server, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/validate", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

const (
	networking = "networking.istio.io/v1"
	security   = "security.istio.io/v1"
)

// manifest makes an object of a kind with a specification.
func manifest(version, kind, spec string) string {
	return fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: obj, namespace: ns}, spec: %s}", version, kind, spec)
}

func virtualService(http string) string {
	return manifest(networking, "VirtualService", "{hosts: [reviews], http: ["+http+"]}")
}

const routed = "route: [{destination: {host: reviews}}]"

func destinationRule(policy string) string {
	return manifest(networking, "DestinationRule", "{host: reviews, trafficPolicy: "+policy+"}")
}

func server(rest string) string {
	return manifest(networking, "Gateway", "{selector: {istio: ingressgateway}, servers: ["+rest+"]}")
}

func jwtRule(rest string) string {
	return manifest(security, "RequestAuthentication", "{jwtRules: ["+rest+"]}")
}

func authorization(rest string) string {
	return manifest(security, "AuthorizationPolicy", rest)
}

func serviceEntry(rest string) string {
	return manifest(networking, "ServiceEntry", rest)
}

// Each bad value is refused with its field and something to do about it.
func TestBadValues(t *testing.T) {
	s := newServer(t)
	for _, c := range badValues() {
		got := ask(t, s, admissionv1.Create, c.object)
		if got.Allowed {
			t.Errorf("allowed: %s", c.object)
			continue
		}
		found := false
		for _, cause := range got.Result.Details.Causes {
			found = found || cause.Field == c.field && strings.Contains(cause.Message, c.says)
		}
		if !found || !strings.Contains(got.Result.Message, c.field) {
			t.Errorf("want %s: …%s…, got %s\n%s", c.field, c.says, got.Result.Message, c.object)
		}
	}
	if n := len(badValues()); n < 60 {
		t.Errorf("only %d values", n)
	}
	if n := testutil.CollectAndCount(s.metrics.failed); n == 0 {
		t.Error("nothing is counted")
	}
}

func TestAllowed(t *testing.T) {
	s := newServer(t)
	bad := virtualService("{}")
	for name, c := range map[string]struct {
		operation admissionv1.Operation
		object    string
		warns     string
	}{
		"delete":       {admissionv1.Delete, bad, ""},
		"connect":      {admissionv1.Connect, bad, ""},
		"finalizing":   {admissionv1.Update, strings.Replace(bad, "name: obj,", "name: obj, deletionTimestamp: '2030-01-01T00:00:00Z', finalizers: [a],", 1), ""},
		"unknown kind": {admissionv1.Create, manifest("networking.istio.io/v9", "Other", "{}"), ""},
		"good":         {admissionv1.Update, virtualService("{" + routed + ", timeout: 3s, retries: {attempts: 3, retryOn: '5xx,503'}}"), ""},
		"unreachable":  {admissionv1.Create, virtualService("{" + routed + "}, {" + routed + "}"), "spec.http[1]: is never reached: spec.http[0] takes every request before it"},
		"deny nothing": {admissionv1.Create, authorization("{action: DENY}"), "spec.rules"},
	} {
		got := ask(t, s, c.operation, c.object)
		if !got.Allowed || c.warns == "" && len(got.Warnings) > 0 || !strings.Contains(strings.Join(got.Warnings, "\n"), c.warns) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, object := range goodObjects() {
		if got := ask(t, s, admissionv1.Create, object); !got.Allowed {
			t.Errorf("%s\n%s", got.Result.Message, object)
		}
	}
	if got := testutil.CollectAndCount(s.metrics.passed); got == 0 {
		t.Error("nothing is counted")
	}
}

func TestRequests(t *testing.T) {
	s := newServer(t)
	for body, want := range map[string]int{
		"": 400, "{": 400, "[]": 400, "{}": 400, `{"apiVersion": "admission.k8s.io/v1beta1", "request": {}}`: 400, `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {}}`: 200,
		`{"apiVersion": "admission.k8s.io/v1", "request": {"operation": "CREATE", "object": null}}`: 200, `{"apiVersion": "admission.k8s.io/v1", "request": {"operation": "CREATE", "object": 3}}`: 200,
		strings.Repeat(" ", maxBody+1): 413,
	} {
		if w := post(s, []byte(body)); w.Code != want {
			t.Errorf("%.60s: %d %s", body, w.Code, w.Body)
		}
	}
	for _, change := range []func(*http.Request){
		func(r *http.Request) { r.Method = http.MethodGet }, func(r *http.Request) { r.Header.Set("Content-Type", "text/yaml") },
	} {
		r := httptest.NewRequest(http.MethodPost, "/validate", strings.NewReader("{}"))
		r.Header.Set("Content-Type", "application/json")
		change(r)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusMethodNotAllowed && w.Code != http.StatusUnsupportedMediaType {
			t.Errorf("%d", w.Code)
		}
	}
}

// Very many problems are told in an answer of a sane size.
func TestManyProblems(t *testing.T) {
	var routes []string
	for range 500 {
		routes = append(routes, "{match: [{uri: {regex: '"+strings.Repeat("(", 300)+"'}}], "+routed+"}, {"+routed+"}")
	}
	got := ask(t, newServer(t), admissionv1.Create, virtualService(strings.Join(routes, ",")))
	if got.Allowed || len(got.Result.Message) > 64<<10 || len(got.Warnings) > maxWarnings || !strings.Contains(got.Result.Message, "and 480 more") {
		t.Errorf("%t, %d bytes, %d warnings", got.Allowed, len(got.Result.Message), len(got.Warnings))
	}
}

func FuzzReview(f *testing.F) {
	add := func(object string) {
		raw, err := yaml.YAMLToJSON([]byte(object))
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(`{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u", "operation": "CREATE", "object": ` + string(raw) + `}}`))
	}
	for _, c := range badValues() {
		add(c.object)
	}
	for _, object := range goodObjects() {
		add(object)
	}
	s := newServer(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		w := post(s, body)
		if w.Code == http.StatusInternalServerError {
			t.Fatalf("%s", w.Body)
		}
		if w.Code != http.StatusOK {
			return
		}
		out := &admissionv1.AdmissionReview{}
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil || out.Response == nil || !out.Response.Allowed && out.Response.Result.Message == "" {
			t.Fatalf("%v: %s", err, w.Body)
		}
	})
}
