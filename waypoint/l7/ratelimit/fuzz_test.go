package ratelimit

import (
	"testing"
	"time"

	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// FuzzCompile: whatever a control plane sends, it is refused, or limits.
func FuzzCompile(f *testing.F) {
	bucket := bucketJSON(3, 1, "1s")
	for _, text := range []string{
		`{}`,
		`{` + always + `"token_bucket":` + bucket + `}`,
		byHeader(bucket, `"max_dynamic_descriptors":2,"enable_x_ratelimit_headers":"DRAFT_VERSION_03",`),
		`{` + always + `"rate_limits":[{"actions":[{"generic_key":{"descriptor_key":"limit","descriptor_value":"0"}}]},
		{"actions":[{"generic_key":{"descriptor_key":"` + FairKey + `","descriptor_value":"0"}},{"request_headers":{"header_name":"x-user","descriptor_key":"user","skip_if_absent":true}}]}],
		"descriptors":[{"entries":[{"key":"limit","value":"0"}],"token_bucket":` + bucket + `}]}`,
		`{` + always + `"rate_limits":[{"actions":[{"remote_address":{}},{"metadata":{"descriptor_key":"m","metadata_key":{"key":"k","path":[{"key":"a"},{"key":"b"}]},
		"source":"ROUTE_ENTRY","default_value":"x"}}]}],"descriptors":[{"entries":[{"key":"remote_address","value":"10.0.0.1"},{"key":"m"}],"token_bucket":` + bucket + `}]}`,
	} {
		p := &localv3.LocalRateLimit{}
		if err := protojson.Unmarshal([]byte(text), p); err != nil {
			f.Fatal(err)
		}
		if err := strict.Check(p); err != nil {
			f.Fatal(err)
		}
		wire, err := proto.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, "x-user", "jane", int64(time.Millisecond))
	}
	f.Fuzz(func(t *testing.T, wire []byte, name, value string, step int64) {
		p := &localv3.LocalRateLimit{}
		if proto.Unmarshal(wire, p) != nil || strict.Check(p) != nil {
			return
		}
		filter, err := Compile(p)
		if err != nil {
			return
		}
		c := newClient(name, value)
		now, passed := start, uint64(0)
		for range 20 {
			v := c.check(filter, now)
			if v.Refused && (!v.Over || !filter.Enforces()) || v.Wait < 0 {
				t.Errorf("%+v", v)
			}
			if v.Shown != nil {
				if limit, remaining, _ := v.Shown.Left(now); remaining > limit {
					t.Errorf("%d of %d tokens are left", remaining, limit)
				}
			}
			if !v.Refused {
				passed++
			}
		}
		if b := filter.standard; b != nil && filter.always && filter.enabled == million && filter.enforced == million && b.rate.per > 0 && passed > b.rate.max {
			t.Errorf("%d requests passed at one moment, %d may", passed, b.rate.max)
		}
		for range 20 {
			now = now.Add(time.Duration(step % int64(time.Hour)))
			c.check(filter, now)
		}
		filter.Concerns(&c.ask)
		again, err := Compile(p)
		if err != nil {
			t.Fatalf("the second time: %v", err)
		}
		again.Adopt(filter)
		c.check(again, now)
	})
}
