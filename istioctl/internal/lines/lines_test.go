package lines

import "testing"

const text = `# a comment
---

apiVersion: v1
kind: Service
metadata:
  name: reviews
  labels:
    istio.io/use-waypoint: w
    app.kubernetes.io/name: x
spec:
  ports:
  - port: 9080
    name: http
  - {port: 1, name: other}
---
broken: [
---
apiVersion: v1
kind: List
items:
- kind: Pod
  metadata: {name: a, namespace: n}
- kind: Pod
  metadata:
    name: b
    namespace: n
    labels: &l
      a: b
  spec:
    more: *l
`

func TestLine(t *testing.T) {
	f := Read([]byte(text))
	for _, test := range []struct {
		document int
		field    string
		want     int
	}{
		{4, "", 4},
		{3, "metadata.name", 7},
		{4, "metadata.labels[istio.io/use-waypoint]", 9},
		{4, "metadata.labels.app.kubernetes.io/name", 10},
		{4, "spec.ports[0].name", 14},
		{4, "spec.ports[1]", 15},
		{4, "spec.ports[7].name", 12},
		{4, "spec.selector.app", 11},
		{17, "broken", 17},
		{19, "items[1].metadata.labels.a", 29},
		{19, "items[1].spec.more.a", 29},
		{19, "items[0].spec", 22},
	} {
		if got := f.Line(test.document, test.field); got != test.want {
			t.Errorf("%d %q: line %d, want %d", test.document, test.field, got, test.want)
		}
	}
	if v, ok := f.Value(4, "spec.ports[1].name"); !ok || v != "other" {
		t.Error(v, ok)
	}
	if v, ok := f.Value(4, "spec.type"); ok {
		t.Error(v, ok)
	}
	if got := f.Item(19, "Pod", "n", "b"); got != "items[1]." {
		t.Error(got)
	}
	if got := f.Item(4, "Service", "default", "reviews"); got != "" {
		t.Error(got)
	}
	if got := Read([]byte(`{"kind": "Pod",
 "spec": {"nodeName": "x"}}`)).Line(1, "spec.nodeName"); got != 2 {
		t.Error(got)
	}
}
