package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	restwatch "k8s.io/client-go/rest/watch"
)

// body is the body of a response, which comes in parts as large as whoever reads asks for.
type body struct {
	io.Reader
	reads  int
	closed bool
}

func (b *body) Read(p []byte) (int, error) { b.reads++; return b.Reader.Read(p) }

func (b *body) Close() error { b.closed = true; return nil }

// frame is an event as an API server sends it.
func frame(t testing.TB, kind watch.EventType, object []byte) []byte {
	t.Helper()
	event := metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: object}}
	data, err := event.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)
}

// followBody returns a decoder of what the client of built-in kinds gets.
func followBody(t testing.TB, b io.ReadCloser) *restwatch.Decoder {
	t.Helper()
	codecs, err := builtinCodecs()
	if err != nil {
		t.Fatal(err)
	}
	object, serializer, framer, err := runtime.NewClientNegotiator(codecs, corev1.SchemeGroupVersion).StreamDecoder(mediaProtobuf, nil)
	if err != nil {
		t.Fatal(err)
	}
	return restwatch.NewDecoder(streaming.NewDecoder(framer.NewFrameReader(b), serializer), object)
}

func TestEventsAreReadAheadAndKeptApart(t *testing.T) {
	large := examplePod("large")
	large.Labels["l"] = string(bytes.Repeat([]byte("x"), 3*streamBuffer))
	var in []byte
	want := []*corev1.Pod{examplePod("a"), examplePod("b"), large, examplePod("c")}
	for _, pod := range want {
		data, _ := encoded(t, pod)
		in = append(in, frame(t, watch.Added, data)...)
	}
	data, _ := encoded(t, &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Reason: metav1.StatusReasonExpired})
	in = append(in, frame(t, watch.Error, data)...)
	b := &body{Reader: bytes.NewReader(in)}
	decoder := followBody(t, b)
	var got []*corev1.Pod
	for range want {
		kind, object, err := decoder.Decode()
		if err != nil || kind != watch.Added {
			t.Fatal(kind, err)
		}
		got = append(got, object.(*corev1.Pod))
	}
	for i, pod := range want { // all have been read: none may be part of what was read later
		if got[i].Name != pod.Name || got[i].Labels["l"] != pod.Labels["l"] || got[i].Status.PodIP != "10.0.0.1" {
			t.Errorf("event %d is of %+v", i, got[i].ObjectMeta)
		}
	}
	kind, object, err := decoder.Decode()
	if status, ok := object.(*metav1.Status); err != nil || kind != watch.Error || !ok || status.Reason != metav1.StatusReasonExpired {
		t.Errorf("a failure is %v %+v, %v", kind, object, err)
	}
	if _, _, err := decoder.Decode(); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v", err)
	}
	if b.reads > 10 { // 11 frames and their sizes, one by one
		t.Errorf("%d reads", b.reads)
	}
	if decoder.Close(); !b.closed {
		t.Error("the body is not closed")
	}
}

func TestEventsThatCannotBeReadAreErrors(t *testing.T) {
	data, _ := encoded(t, examplePod("a"))
	whole := frame(t, watch.Added, data)
	sized := func(content []byte) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(content))), content...)
	}
	for name, in := range map[string][]byte{
		"another type":        frame(t, "OTHER", data),
		"no object":           frame(t, watch.Added, nil),
		"half an object":      frame(t, watch.Added, data[:len(data)/2]),
		"half an event":       sized(whole[4 : len(whole)/2]),
		"not protobuf at all": sized([]byte("\xff\xff\xff\xff")),
		"an event cut off":    whole[:len(whole)-1],
	} {
		t.Run(name, func(t *testing.T) {
			if kind, object, err := followBody(t, &body{Reader: bytes.NewReader(in)}).Decode(); err == nil {
				t.Errorf("decoded %v %+v", kind, object)
			}
		})
	}
}

// BenchmarkDecodeEvent is what a watch costs for each pod.
func BenchmarkDecodeEvent(b *testing.B) {
	data, _ := encoded(b, examplePod("a"))
	one := frame(b, watch.Added, data)
	in := &body{Reader: &repeated{data: one}}
	decoder := followBody(b, in)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := decoder.Decode(); err != nil {
			b.Fatal(err)
		}
	}
}

// repeated is the same data without end.
type repeated struct {
	data []byte
	at   int
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) {
		m := copy(p[n:], r.data[r.at:])
		n, r.at = n+m, (r.at+m)%len(r.data)
	}
	return n, nil
}
