package cluster

import (
	"bufio"
	"fmt"
	"io"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// streamed returns media types whose watches in protobuf cost less: at the start all objects that there are come by one.
func streamed(infos []runtime.SerializerInfo) []runtime.SerializerInfo {
	infos = slices.Clone(infos)
	for i, info := range infos {
		if info.MediaType != mediaProtobuf || info.StreamSerializer == nil {
			continue
		}
		stream := *info.StreamSerializer
		stream.Framer = bufferedFramer{stream.Framer}
		stream.Serializer = eventSerializer{stream.Serializer}
		infos[i].StreamSerializer = &stream
	}
	return infos
}

// streamBuffer is how much is read from a watch at once, if that much has come: the connection tells the server of each read that
// it has room again.
const streamBuffer = 16 << 10

// bufferedFramer reads ahead of the frames.
type bufferedFramer struct{ runtime.Framer }

// NewFrameReader implements runtime.Framer.
func (f bufferedFramer) NewFrameReader(r io.ReadCloser) io.ReadCloser {
	return f.Framer.NewFrameReader(struct {
		io.Reader
		io.Closer
	}{bufio.NewReaderSize(r, streamBuffer), r})
}

// eventSerializer decodes events of a watch without a copy of the object inside: whoever decodes that does so before the next event
// is read. It leaves everything else to the other.
type eventSerializer struct{ runtime.Serializer }

// Decode implements runtime.Decoder.
func (s eventSerializer) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	event, ok := into.(*metav1.WatchEvent)
	if !ok {
		return s.Serializer.Decode(data, defaults, into)
	}
	gvk := metav1.SchemeGroupVersion.WithKind("WatchEvent")
	var kind, extension, object []byte
	err := walk(data, func(number protowire.Number, value []byte) {
		switch number {
		case 1:
			kind = value
		case 2:
			extension = value
		}
	})
	if err == nil {
		err = walk(extension, func(number protowire.Number, value []byte) {
			if number == 1 {
				object = value
			}
		})
	}
	if err != nil {
		return nil, &gvk, fmt.Errorf("decode an event of a watch: %w", err)
	}
	*event = metav1.WatchEvent{Type: eventType(kind), Object: runtime.RawExtension{Raw: object}}
	return event, &gvk, nil
}

// eventType takes no memory for the types that there are.
func eventType(text []byte) string {
	for _, known := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted, watch.Bookmark, watch.Error} {
		if string(text) == string(known) {
			return string(known)
		}
	}
	return string(text)
}
