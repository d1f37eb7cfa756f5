package mutate

import (
	"net/netip"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

func info() *exchange.Info {
	h := &httpmsg.Head{}
	h.Reset()
	h.Version, h.Method, h.Authority, h.Path, h.Scheme = httpmsg.HTTP2, "GET", "h:80", "/p?q", "http"
	h.Header.Add("x-a", "1")
	h.Header.Add("x-a", "2")
	i := &exchange.Info{}
	i.Begin(h, &exchange.Conn{Source: netip.MustParseAddrPort("10.0.0.1:5"), Destination: netip.MustParseAddrPort("[fd00::1]:80"), Identity: "spiffe://p", LocalIdentity: "spiffe://l", SNI: "s", ID: 7})
	i.Remote, i.Route, i.Cluster, i.Now = netip.MustParseAddrPort("192.0.2.1:0"), "r", "c", time.Unix(0, 0)
	i.SetMetadata("f", "k", map[string]any{"a": "b", "n": 1.5})
	i.SetState("key", "state")
	return i
}

func TestFormat(t *testing.T) {
	for format, want := range map[string]string{
		"plain": "plain", "a%%b": "a%b", "": "", "%REQ(X-A)%": "1", "%REQ(none?:METHOD)%": "GET", "%REQ(:AUTHORITY):1%": "h", "%REQ(:path)%": "/p?q", "%REQ(none)%": "",
		"<%PROTOCOL%>": "<HTTP/2>", "%DOWNSTREAM_REMOTE_ADDRESS%": "192.0.2.1:0", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%": "192.0.2.1",
		"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%": "10.0.0.1:5", "%DOWNSTREAM_LOCAL_ADDRESS%": "[fd00::1]:80", "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%": "fd00::1", "%DOWNSTREAM_LOCAL_PORT%": "80",
		"%DOWNSTREAM_PEER_URI_SAN%": "spiffe://p", "%DOWNSTREAM_LOCAL_URI_SAN%": "spiffe://l", "%REQUESTED_SERVER_NAME%": "s", "%CONNECTION_ID%": "7", "%ROUTE_NAME%": "r", "%UPSTREAM_CLUSTER%": "c",
		"%START_TIME%": "1970-01-01T00:00:00.000Z", "%FILTER_STATE(key:PLAIN)%": "state", "%FILTER_STATE(nope:PLAIN)%": "", "%DYNAMIC_METADATA(f:k:a)%": "b", "%DYNAMIC_METADATA(f:k:n)%": "1.5",
		"%DYNAMIC_METADATA(f:k)%": `{"a":"b","n":1.5}`, "%DYNAMIC_METADATA(g)%": "", "%RESP(x)%": "", "%RESPONSE_CODE%": "0",
	} {
		f, err := CompileFormat(format)
		if err != nil {
			t.Errorf("%s: %v", format, err)
			continue
		}
		if got := f.Value(info()); got != want {
			t.Errorf("%s: %q, want %q", format, got, want)
		}
	}
	for _, bad := range []string{"%", "%REQ(a%", "%NOPE%", "%REQ(a):x%", "%REQ(a)b%", "%START_TIME(%s)%", "a%b"} {
		if _, err := CompileFormat(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestRefusedHeaders(t *testing.T) {
	for _, key := range []string{"", ":path", "Host", "Content-Length", "connection", "Transfer-Encoding"} {
		if _, err := CompileHeaders("request", nil, []string{key}); err == nil {
			t.Errorf("%q may be removed", key)
		}
		if _, err := CompileHeaders("request", []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: key, Value: "x"}}}, nil); err == nil {
			t.Errorf("%q may be set", key)
		}
	}
}
