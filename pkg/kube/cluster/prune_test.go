package cluster

import (
	"bytes"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

// encoded returns an object as an API server sends it.
func encoded(t testing.TB, o runtime.Object) ([]byte, runtime.Decoder) {
	t.Helper()
	codecs, err := builtinCodecs()
	if err != nil {
		t.Fatal(err)
	}
	info, ok := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), mediaProtobuf)
	if !ok {
		t.Fatal("no protobuf")
	}
	var out bytes.Buffer
	if err := codecs.EncoderForVersion(info.Serializer, schema.GroupVersion{Version: "v1"}).Encode(o, &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), codecs.DecoderToVersion(info.Serializer, schema.GroupVersion{Version: "v1"})
}

func exampleNode() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"x.istio.io/y": "z"}},
		Spec:       corev1.NodeSpec{PodCIDR: "10.0.0.0/24", Taints: []corev1.Taint{{Key: "k", Effect: "NoSchedule"}}},
		Status: corev1.NodeStatus{
			Capacity: corev1.ResourceList{"cpu": resource.MustParse("1")}, Images: []corev1.ContainerImage{{Names: []string{"i"}}},
			Addresses: []corev1.NodeAddress{{Type: "InternalIP", Address: "10.0.0.1"}}, Conditions: []corev1.NodeCondition{{Type: "Ready", Status: "True", Message: "m"}},
		},
	}
}

// TestWhatIsDecodedIsWhatIsLeftAfterwards compares what is pruned on the wire and reduced with what is only reduced.
func TestWhatIsDecodedIsWhatIsLeftAfterwards(t *testing.T) {
	ip := corev1.ProtocolTCP
	for _, o := range []kube.Object{
		examplePod("a"),
		exampleNode(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns", Labels: map[string]string{"a": "b"}, Finalizers: []string{"f"}}, Status: corev1.NamespaceStatus{Phase: "Active"}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns", Annotations: map[string]string{"a": "b"}}, Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{{Port: 80, Protocol: ip}}}},
		&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns"}, AddressType: "IPv4", Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}}, Ports: []discoveryv1.EndpointPort{{Protocol: &ip}}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns"}, Data: map[string][]byte{"a": []byte("b")}},
	} {
		data, decoder := encoded(t, o)
		decoded, _, err := decoder.Decode(data, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, want := decoded.(kube.Object), o.DeepCopyObject().(kube.Object)
		if pod, ok := got.(*corev1.Pod); ok && (pod.Spec.Volumes != nil || pod.ManagedFields != nil) {
			t.Error("the pod is not pruned")
		}
		s := newStripper()
		s.strip(got)
		s.strip(want)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%T:\ngot  %+v\nwant %+v", o, got, want)
		}
	}
}

func TestListsArePruned(t *testing.T) {
	data, decoder := encoded(t, &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "7"}, Items: []corev1.Pod{*examplePod("a"), *examplePod("b")}})
	decoded, _, err := decoder.Decode(data, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	list := decoded.(*corev1.PodList)
	if list.ResourceVersion != "7" || len(list.Items) != 2 || list.Items[1].Name != "b" || list.Items[1].Spec.Volumes != nil || list.Items[1].Spec.Containers[0].Ports[0].Name != "http" {
		t.Errorf("decoded %+v", list)
	}
}

func FuzzPrune(f *testing.F) {
	data, _ := encoded(f, examplePod("a"))
	f.Add(data[len(protobufPrefix):])
	kinds := pruning()
	f.Fuzz(func(t *testing.T, data []byte) {
		_, raw := envelope(data)
		for _, in := range [][]byte{data, raw} {
			if out, err := kinds["Pod"].append(nil, in); err == nil && len(out) > 5*len(in)+8 {
				t.Errorf("%d bytes became %d", len(in), len(out))
			}
		}
	})
}

func BenchmarkDecodePod(b *testing.B) {
	data, decoder := encoded(b, examplePod("a"))
	s := newStripper()
	b.ReportAllocs()
	for b.Loop() {
		o, _, err := decoder.Decode(data, nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		s.strip(o.(kube.Object))
	}
}
