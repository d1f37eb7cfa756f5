package kube

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	networking "istio.io/api/networking/v1alpha3"
)

func TestDurationsAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"3s": 3 * time.Second, "0.5s": 500 * time.Millisecond, "300ms": 300 * time.Millisecond, "1m30s": 90 * time.Second, "1h": time.Hour, "7µs": 7 * time.Microsecond,
	} {
		var vs networking.VirtualService
		data := `{"hosts": ["a"], "http": [{"timeout": "` + text + `", "retries": {"attempts": 2147483647, "perTryTimeout": "` + text + `"}}]}`
		if err := UnmarshalMessage([]byte(data), &vs, protojson.UnmarshalOptions{}); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		route := vs.GetHttp()[0]
		if route.GetTimeout().AsDuration() != want || route.GetRetries().GetPerTryTimeout().AsDuration() != want || route.GetRetries().GetAttempts() != 2147483647 {
			t.Errorf("%s: %v", text, route)
		}
	}
}

func TestWhatIsNoDurationIsNamed(t *testing.T) {
	objects, errs := Decode("vs.yaml", []byte(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec: {hosts: [a], http: [{timeout: soon, route: [{destination: {host: a}}]}]}
`))
	if len(objects) > 0 || len(errs) != 1 || errs[0].Field != "spec.http[0].timeout" || !strings.Contains(errs[0].Reason, `"soon" is not a duration`) {
		t.Errorf("%v, %v", objects, errs)
	}
}
