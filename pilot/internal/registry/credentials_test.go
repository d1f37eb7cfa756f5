package registry

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
	"github.com/isthmus-mesh/isthmus/pkg/testkit"
	"github.com/isthmus-mesh/isthmus/pkg/xds/server"
)

func newCA(t *testing.T) *testkit.CA {
	t.Helper()
	ca, err := testkit.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func secretYAML(t *testing.T, namespace, name string) string {
	t.Helper()
	manifest, _, err := newCA(t).Secret(namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}

var edgeGateways = `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 443, name: one, protocol: HTTPS}, hosts: [one.example.com], tls: {mode: SIMPLE, credentialName: one}}
  - {port: {number: 443, name: two, protocol: HTTPS}, hosts: [two.example.com], tls: {mode: MUTUAL, credentialName: two}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: api, namespace: edge}
spec:
  gatewayClassName: istio
  listeners:
  - {name: own, port: 443, protocol: HTTPS, hostname: own.example.com, tls: {certificateRefs: [{name: one}]}}
  - {name: granted, port: 443, protocol: HTTPS, hostname: granted.example.com, tls: {certificateRefs: [{name: granted, namespace: other}]}}
  - {name: kept, port: 443, protocol: HTTPS, hostname: kept.example.com, tls: {certificateRefs: [{name: kept, namespace: other}]}}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: granted, namespace: other}
spec: {from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: edge}], to: [{group: "", kind: Secret, name: granted}]}
---
apiVersion: v1
kind: Pod
metadata: {name: api-1, namespace: edge, labels: {gateway.networking.k8s.io/gateway-name: api}}
spec: {serviceAccountName: api-istio, nodeName: node-1, containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.9, conditions: [{type: Ready, status: "True"}]}
---
` + testkit.SecretReader("edge", "gw")

func routerNode(t *testing.T, namespace string, labels map[string]any) *corev3.Node {
	t.Helper()
	meta, err := structpb.NewStruct(map[string]any{"NAMESPACE": namespace, "LABELS": labels})
	if err != nil {
		t.Fatal(err)
	}
	return &corev3.Node{Id: "router~10.0.0.1~gw." + namespace + "~" + namespace + ".svc.cluster.local", Metadata: meta}
}

// connect opens what a proxy with this node and these credentials subscribes to, and returns the scope of its secrets.
func (w *world) connect(node *corev3.Node, peer server.Peer) string {
	w.t.Helper()
	scopes := w.r.Scopes()
	secrets := scopes.ScopeOf(node, peer, SecretType)
	scopes.Open(scopes.ScopeOf(node, peer, ListenerType))
	scopes.Open(secrets)
	return secrets
}

func TestCredentialsReachOnlyWhoMayHaveThem(t *testing.T) {
	w := newWorld(t, edgeGateways+secretYAML(t, "edge", "one")+secretYAML(t, "edge", "two")+secretYAML(t, "other", "one")+secretYAML(t, "other", "granted")+secretYAML(t, "other", "kept"))
	classic, api := map[string]any{"istio": "ingressgateway"}, map[string]any{labelGatewayName: "api"}
	all := []string{"sds kubernetes://one", "sds kubernetes://two", "sds kubernetes://two-cacert"}
	// The one who may is first: what it has asked for must make no difference to those after it.
	for _, tt := range []struct {
		name, namespace, account string
		labels                   map[string]any
		claims                   string // namespace that the node says it is of
		want                     []string
	}{
		{"may read", "edge", "gw", classic, "edge", all},
		{"another account of the namespace", "edge", "default", classic, "edge", nil},
		{"an account of the same name elsewhere", "other", "gw", classic, "other", nil},
		{"another namespace that claims this one", "other", "gw", classic, "edge", nil},
		{"nobody", "", "", classic, "edge", nil},
		{"an account with a separator", "edge", "gw/router", classic, "edge", nil},
		{"the Gateway's own pods", "edge", "api-istio", api, "edge", []string{"sds kubernetes-gateway://edge/one", "sds kubernetes-gateway://other/granted"}},
		{"a pod that says it is the Gateway's", "edge", "gw", api, "edge", nil},
		{"a pod of another namespace that says so", "other", "api-istio", api, "other", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scope := w.connect(routerNode(t, tt.claims, tt.labels), server.Peer{Namespace: tt.namespace, ServiceAccount: tt.account})
			if got := w.names(scope); !slices.Equal(got, tt.want) {
				t.Errorf("%s has %v, want %v", scope, got, tt.want)
			}
		})
	}
	problems := fmt.Sprint(w.r.Problems())
	for _, want := range []string{"service account default of the proxy's pods may not read Secret edge/one", "there is no Secret other/two"} {
		if !strings.Contains(problems, want) {
			t.Errorf("nobody says %q: %s", want, problems)
		}
	}
	if strings.Contains(problems, "PRIVATE") || strings.Contains(problems, "BEGIN") {
		t.Errorf("a secret is told: %s", problems)
	}
}

func TestCredentialsFollowSecretsAndRights(t *testing.T) {
	w := newWorld(t, edgeGateways+secretYAML(t, "edge", "one"))
	scope := w.connect(routerNode(t, "edge", map[string]any{"istio": "ingressgateway"}), server.Peer{Namespace: "edge", ServiceAccount: "gw"})
	first := w.has[scope]["sds kubernetes://one"]
	if first == "" || len(w.has[scope]) != 1 {
		t.Fatalf("%v", w.names(scope))
	}
	w.took()
	w.apply(secretYAML(t, "edge", "one"))
	w.expect(scope + " sds kubernetes://one")
	if w.has[scope]["sds kubernetes://one"] == first {
		t.Error("the certificate is the old one")
	}
	w.remove(secretYAML(t, "edge", "one"))
	w.expect(scope + " -sds kubernetes://one")
	w.apply(secretYAML(t, "edge", "one"))
	w.took()
	// What is broken keeps what was served before, as long as it may be had.
	w.apply("apiVersion: v1\nkind: Secret\nmetadata: {name: one, namespace: edge}\ndata: {tls.crt: YQ==, tls.key: Yg==}\n")
	w.expect()
	if problems := fmt.Sprint(w.r.Problems()); !strings.Contains(problems, "Secret edge/one: tls.crt and tls.key are no certificate") {
		t.Errorf("nobody says what is broken: %s", problems)
	}
	w.apply("apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reader, namespace: edge}\nrules: [{apiGroups: [\"\"], resources: [secrets], resourceNames: [two], verbs: [get]}]\n")
	w.expect(scope + " -sds kubernetes://one")
}

func TestCredentialsWaitForLookups(t *testing.T) {
	w := &world{t: t, r: New(Mesh{}, WithLookups()), has: map[string]map[string]string{}}
	w.sink = w.r.Sink(nil)
	w.apply(edgeGateways)
	w.sink.Synced()
	w.r.PublishTo(w)
	var wanted Wanted
	defer w.r.FollowCredentials(func(now Wanted) { wanted = now })()
	scope := w.connect(routerNode(t, "edge", map[string]any{"istio": "ingressgateway"}), server.Peer{Namespace: "edge", ServiceAccount: "gw"})
	one := credential.Source{Kind: credential.Secret, Namespace: "edge", Name: "one"}
	if _, ok := wanted.Objects[one]; !ok || w.has[scope] != nil {
		t.Fatalf("wanted %v, published %v", wanted, w.has[scope])
	}
	for o := range wanted.Objects {
		if o.Namespace == "other" && o.Name == "kept" {
			t.Error("a Secret is read that no grant allows to")
		}
		w.r.SetLookups([]Lookup{{Source: o}})
	}
	if w.has[scope] == nil || len(w.has[scope]) != 0 {
		t.Errorf("published %v when nothing is there", w.has[scope])
	}
	issued, err := newCA(t).Named("one")
	if err != nil {
		t.Fatal(err)
	}
	certificate, key, err := testkit.KeyPair(issued)
	if err != nil {
		t.Fatal(err)
	}
	w.r.SetLookups([]Lookup{{Source: one, Data: map[string][]byte{"tls.crt": certificate, "tls.key": key}}})
	read := Read{"edge", "gw", "one"}
	if _, ok := wanted.Reads[read]; !ok || len(w.has[scope]) != 0 {
		t.Fatalf("asked %v, published %v", wanted.Reads, w.names(scope))
	}
	w.r.SetReaders([]Reader{{Read: read, Problem: "the API server is away"}})
	w.r.SetReaders([]Reader{{Read: read}})
	if len(w.has[scope]) != 0 {
		t.Errorf("published %v without the right", w.names(scope))
	}
	w.r.SetReaders([]Reader{{Read: read, May: true}})
	if got := w.names(scope); !slices.Equal(got, []string{"sds kubernetes://one"}) {
		t.Errorf("published %v", got)
	}
}

// secretWith is a manifest of a Secret with these keys.
func secretWith(namespace, name string, data map[string][]byte) string {
	out := "apiVersion: v1\nkind: Secret\nmetadata: {name: " + name + ", namespace: " + namespace + "}\ndata:\n"
	for _, key := range slices.Sorted(maps.Keys(data)) {
		out += "  " + key + ": " + base64.StdEncoding.EncodeToString(data[key]) + "\n"
	}
	return out + "---\n"
}

// TestListsOfRevokedCertificates: what cannot be a list of the authorities is refused, by name, and the last good one goes on.
func TestListsOfRevokedCertificates(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	issued, err := ca.Named("two")
	if err != nil {
		t.Fatal(err)
	}
	certificate, key, err := testkit.KeyPair(issued)
	if err != nil {
		t.Fatal(err)
	}
	list := func(by *testkit.CA, revoked ...*x509.Certificate) []byte {
		t.Helper()
		text, err := by.Revoke(time.Now().Add(time.Hour), revoked...)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	const resource = "sds kubernetes://two-cacert"
	for form, keys := range map[string][2]string{"tls": {"ca.crt", "ca.crl"}, "generic": {"cacert", "crl"}} {
		for _, beside := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, beside %t", form, beside), func(t *testing.T) {
				secret := func(crl []byte) string {
					data := map[string][]byte{keys[0]: ca.RootPEM()}
					if crl != nil {
						data[keys[1]] = crl
					}
					own := map[string][]byte{"tls.crt": certificate, "tls.key": key}
					if beside {
						return secretWith("edge", "two", own) + secretWith("edge", "two-cacert", data)
					}
					maps.Copy(data, own)
					return secretWith("edge", "two", data)
				}
				good := list(ca)
				w := newWorld(t, edgeGateways+secret(good))
				scope := w.connect(routerNode(t, "edge", map[string]any{"istio": "ingressgateway"}), server.Peer{Namespace: "edge", ServiceAccount: "gw"})
				if !strings.Contains(w.has[scope][resource], string(good)) {
					t.Fatalf("the list is not served: %v", w.names(scope))
				}
				w.took()
				for want, bad := range map[string][]byte{
					"it has no list of revoked certificates in PEM: convert it": []byte("hunter2"),
					"cut off": slices.Concat(good, good[:len(good)-30]),
					"is not signed by the key of the authority that is trusted: put the lists of the authorities beside them": list(other),
				} {
					w.apply(secret(bad))
					w.expect()
					problems := fmt.Sprint(w.r.Problems())
					if !strings.Contains(problems, want) || !strings.Contains(problems, "Secret edge/two") || !strings.Contains(problems, ": "+keys[1]+": ") || strings.Contains(problems, "hunter2") {
						t.Errorf("want %q of %s: %s", want, keys[1], problems)
					}
					if !strings.Contains(w.has[scope][resource], string(good)) {
						t.Error("the last good list does not go on")
					}
				}
				next := list(ca, issued.Leaf)
				w.apply(secret(next))
				w.expect(scope + " " + resource)
				if !strings.Contains(w.has[scope][resource], string(next)) {
					t.Error("the next good list is not served")
				}
				w.apply(secret(nil))
				w.expect(scope + " " + resource)
				if strings.Contains(w.has[scope][resource], "X509 CRL") {
					t.Error("there still is a list")
				}
			})
		}
	}
}
