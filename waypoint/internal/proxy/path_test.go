package proxy

import "testing"

func TestRequestThroughTunnels(t *testing.T) {
	b := newBed(t)
	pod := b.backend("reviews", say("hello"))
	b.apply(pod)
	c := b.client("productpage", false)
	for range 3 {
		if status, body := get(t, c, "/reviews/1"); status != 200 || body != "hello" {
			t.Fatalf("%d %q", status, body)
		}
	}
	r := b.records.last(t, 3)
	if r.Status != 200 || r.Flags != "-" || r.Details != "via_upstream" || r.Cluster != service || r.Path != "/reviews/1" ||
		r.Host != "envoy://connect_originate/"+pod.ip+":9080" || r.Source != "spiffe://cluster.local/ns/default/sa/productpage" || r.Sent != 5 {
		t.Errorf("%+v", r)
	}
	if pod.tunnels.Load() != 1 {
		t.Errorf("%d connections to the pod for 3 requests", pod.tunnels.Load())
	}
}
