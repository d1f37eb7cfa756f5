package debug

import (
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func packed(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	out, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func inline(text string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text}}
}

// TestRedact: what is secret is taken out wherever it is, the rest stays, and so does what was given.
func TestRedact(t *testing.T) {
	t.Parallel()
	certificate := &tlsv3.TlsCertificate{CertificateChain: inline("chain"), PrivateKey: inline("s3cret"), Password: inline("s3cret")}
	socket := &tlsv3.UpstreamTlsContext{Sni: "a.b", CommonTlsContext: &tlsv3.CommonTlsContext{TlsCertificates: []*tlsv3.TlsCertificate{certificate}}}
	for name, m := range map[string]proto.Message{
		"a secret": &tlsv3.Secret{Name: "a.b", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: certificate}},
		"keys": &tlsv3.Secret{Name: "a.b chain", Type: &tlsv3.Secret_SessionTicketKeys{SessionTicketKeys: &tlsv3.TlsSessionTicketKeys{
			Keys: []*corev3.DataSource{{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte("s3cret")}}},
		}}},
		"in a cluster": &clusterv3.Cluster{Name: "c", TransportSocket: &corev3.TransportSocket{
			Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(t, socket)},
		}},
	} {
		given := packed(t, m)
		before := proto.Clone(given)
		got, err := withoutSecrets(given)
		if err != nil {
			t.Fatal(err)
		}
		shown, err := got.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		text := prototext.Format(shown)
		if strings.Contains(text, "s3cret") || !strings.Contains(text, redacted) || !strings.Contains(text, "chain") || !strings.Contains(text, "a.b") {
			t.Errorf("%s: %s", name, text)
		}
		if !proto.Equal(given, before) {
			t.Errorf("%s: what was given is changed", name)
		}
	}
	plain := packed(t, &clusterv3.Cluster{Name: "c"})
	if got, err := withoutSecrets(plain); err != nil || got != plain {
		t.Errorf("what has no secret: %v, %v", got, err)
	}
}
