//go:build envtest

package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	authv1 "istio.io/api/security/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

const nodes = `
apiVersion: v1
kind: Node
metadata: {name: node-1, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1}}
---
apiVersion: v1
kind: Node
metadata: {name: node-2}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ztunnel, namespace: istio-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: ztunnel-1, namespace: istio-system}
spec: {serviceAccountName: ztunnel, nodeName: node-1, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.1.2, podIPs: [{ip: 10.244.1.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: ztunnel-2, namespace: istio-system}
spec: {serviceAccountName: ztunnel, nodeName: node-2, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.2.2, podIPs: [{ip: 10.244.2.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: web, nodeName: node-1, containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
status: {phase: Running, podIP: 10.244.1.5, podIPs: [{ip: 10.244.1.5}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.7, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}`

// One API server serves all of them, which build on each other.
func TestKubernetes(t *testing.T) {
	b := newKubeBed(t)
	b.apply(nodes)
	// Two at once, which must end with one root.
	first, second := b.start("istiod-a", withCRL), b.start("istiod-b", withCRL)
	one, two := first(), second()
	t.Run("two replicas have one root", func(t *testing.T) {
		if a, b := one.rootPEM(t), two.rootPEM(t); a != b || a == "" {
			t.Errorf("roots %q and %q", a, b)
		}
	})
	t.Run("objects are served", func(t *testing.T) { b.t = t; b.objects(one) })
	t.Run("roots are in every namespace", func(t *testing.T) { b.t = t; b.distribution(one) })
	t.Run("certificates for tokens", func(t *testing.T) { b.t = t; b.tokens(one) })
	t.Run("the webhook's certificate", func(t *testing.T) {
		conn, err := tls.Dial("tcp", one.HTTPS.String(), one.clientTLS(t, "istiod.istio-system.svc"))
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
	t.Run("problems of objects", func(t *testing.T) { b.t = t; b.problems(one) })
	t.Run("the mesh configuration is followed", func(t *testing.T) { b.t = t; b.meshConfig(one) })
	t.Run("discovery selectors", func(t *testing.T) { b.t = t; b.selectors(one, two) })
	t.Run("an outage of the API", func(t *testing.T) { b.t = t; b.outage(one) })
	t.Run("the next replica takes over", func(t *testing.T) { b.t = t; b.failover(one, two) })
	t.Run("an authority is plugged in", func(t *testing.T) { b.t = t; b.plugIn(one, two) })
}

// withCRL has revocation lists distributed.
func withCRL(c *Config) { c.Controllers.CRL = true }

func (b *kubeBed) objects(r *replica) {
	w := r.subscribe(b.t)
	w.until("the pod and the service", func() bool { return w.resources[webUID] != nil && w.resources[webService] != nil })
	pod := w.resources[webUID].GetWorkload()
	if pod.GetNode() != "node-1" || pod.GetLocality().GetZone() != "z1" || pod.GetServices()[webService].GetPorts()[0].GetTargetPort() != 8080 {
		b.t.Errorf("pod %v", pod)
	}
	b.apply(policy)
	w.until("the policy applies", func() bool { return len(w.resources[webUID].GetWorkload().GetAuthorizationPolicies()) == 1 })
	b.delete(policy)
	w.until("the policy is gone", func() bool { return len(w.resources[webUID].GetWorkload().GetAuthorizationPolicies()) == 0 })
}

func (b *kubeBed) distribution(r *replica) {
	root := r.rootPEM(b.t)
	has := func(namespace string) func() bool {
		return func() bool { return b.configMap(namespace, "istio-ca-root-cert", "root-cert.pem") == root }
	}
	b.eventually("shop has the roots", has("shop"))
	b.apply("{apiVersion: v1, kind: Namespace, metadata: {name: later}}")
	b.eventually("a new namespace has the roots", has("later"))
	if err := b.api.CoreV1().ConfigMaps("later").Delete(b.t.Context(), "istio-ca-root-cert", metav1.DeleteOptions{}); err != nil {
		b.t.Fatal(err)
	}
	b.eventually("deleted, they come back", has("later"))
	b.apply(`{apiVersion: v1, kind: ConfigMap, metadata: {name: istio-ca-root-cert, namespace: later}, data: {root-cert.pem: forged}}`)
	b.eventually("changed, they come back", has("later"))
	if b.configMap("kube-system", "istio-ca-root-cert", "root-cert.pem") != "" {
		b.t.Error("kube-system has the roots")
	}
}

func sign(t *testing.T, conn *grpc.ClientConn, token, cluster, wanted string) error {
	t.Helper()
	csr, _, err := certs.NewCSR(spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "web"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token, "clusterid", cluster), 20*time.Second)
	defer cancel()
	request := &authv1.IstioCertificateRequest{Csr: string(csr), ValidityDuration: 3600}
	if wanted != "" {
		request.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{"ImpersonatedIdentity": structpb.NewStringValue(wanted)}}
	}
	_, err = authv1.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, request)
	return err
}

func (b *kubeBed) tokens(r *replica) {
	const web = "spiffe://cluster.local/ns/shop/sa/web"
	conn := r.dial(b.t)
	local, remote := b.pod("istio-system", "ztunnel-1"), b.pod("istio-system", "ztunnel-2")
	for name, tt := range map[string]struct {
		token, cluster, wanted string
		want                   codes.Code
	}{
		"a node proxy for a pod of its node":    {b.token("istio-system", "ztunnel", local, "istio-ca"), "Kubernetes", web, codes.OK},
		"a node proxy for itself":               {b.token("istio-system", "ztunnel", local, "istio-ca"), "Kubernetes", "", codes.OK},
		"a workload for itself":                 {b.token("shop", "web", b.pod("shop", "web-1"), "istio-ca"), "Kubernetes", "", codes.OK},
		"a token for the API":                   {b.token("istio-system", "ztunnel", local, "https://kubernetes.default.svc"), "Kubernetes", web, codes.Unauthenticated},
		"a node proxy of another node":          {b.token("istio-system", "ztunnel", remote, "istio-ca"), "Kubernetes", web, codes.Unauthenticated},
		"a token that is bound to no pod":       {b.token("istio-system", "ztunnel", nil, "istio-ca"), "Kubernetes", web, codes.Unauthenticated},
		"a workload for another":                {b.token("shop", "web", b.pod("shop", "web-1"), "istio-ca"), "Kubernetes", web, codes.Unauthenticated},
		"a node proxy that names no cluster":    {b.token("istio-system", "ztunnel", local, "istio-ca"), "", web, codes.Unauthenticated},
		"a node proxy of another cluster":       {b.token("istio-system", "ztunnel", local, "istio-ca"), "west", web, codes.Unauthenticated},
		"something that is no token":            {"abc", "Kubernetes", web, codes.Unauthenticated},
		"a token with a signature that is none": {b.token("istio-system", "ztunnel", local, "istio-ca") + "x", "Kubernetes", web, codes.Unauthenticated},
	} {
		if err := sign(b.t, conn, tt.token, tt.cluster, tt.wanted); status.Code(err) != tt.want {
			b.t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
	token := b.token("istio-system", "ztunnel", remote, "istio-ca")
	b.delete(`{apiVersion: v1, kind: Pod, metadata: {name: ztunnel-2, namespace: istio-system}}`)
	// The API server accepts it until its own cache of pods has followed.
	b.eventually("the token of a pod that is gone is refused", func() bool {
		return status.Code(sign(b.t, conn, token, "Kubernetes", "")) == codes.Unauthenticated
	})
}

func (b *kubeBed) problems(r *replica) {
	const broken = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: broken, namespace: shop}
spec: {rules: [{from: [{source: {ipBlocks: ["10.0.0.0/99"]}}]}]}`
	b.apply(broken)
	b.eventually("the object is among the problems", func() bool {
		list := asJSON(b.t, r.page(b.t, "/debug/problemz"))["AuthorizationPolicy shop/broken"]
		return len(list) > 0 && strings.Contains(list[0], "ipBlocks")
	})
	b.delete(broken)
	b.eventually("the problem is gone", func() bool { return len(asJSON(b.t, r.page(b.t, "/debug/problemz"))) == 0 })
}

func (b *kubeBed) setMesh(text string) {
	b.t.Helper()
	b.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    " + strings.ReplaceAll(text, "\n", "\n    "))
}

func (b *kubeBed) meshConfig(r *replica) {
	if page := r.page(b.t, "/debug/mesh"); !strings.Contains(page, "/dev/stdout") {
		b.t.Errorf("at the start: %s", page)
	}
	b.setMesh("trustDomainAliases: [old.example]")
	b.eventually("the change is in force", func() bool { return strings.Contains(r.page(b.t, "/debug/mesh"), "old.example") })
	b.setMesh("trustDomainAliases: {")
	b.eventually("the mistake is among the problems", func() bool { return len(asJSON(b.t, r.page(b.t, "/debug/problemz"))["MeshConfig"]) == 1 })
	if page := r.page(b.t, "/debug/mesh"); !strings.Contains(page, "old.example") {
		b.t.Errorf("after a mistake: %s", page)
	}
	b.setMesh("accessLogFile: /dev/stdout")
	b.eventually("the problem is gone", func() bool { return len(asJSON(b.t, r.page(b.t, "/debug/problemz"))["MeshConfig"]) == 0 })
}

func (b *kubeBed) selectors(r, other *replica) {
	w := r.subscribe(b.t)
	w.until("the pod", func() bool { return w.resources[webUID] != nil })
	b.setMesh("discoverySelectors: [{matchLabels: {team: other}}]")
	w.until("the pod is not part of the mesh", func() bool { return w.resources[webUID] == nil })
	// Either of them may be the one that writes roots.
	for _, each := range []*replica{r, other} {
		b.eventually("the selectors are in force", func() bool { return strings.Contains(each.page(b.t, "/debug/mesh"), `"team"`) })
	}
	b.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: unrelated}}`)
	b.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: related, labels: {team: other}}}`)
	b.eventually("only what is selected gets roots", func() bool { return b.configMap("related", "istio-ca-root-cert", "root-cert.pem") != "" })
	if b.configMap("unrelated", "istio-ca-root-cert", "root-cert.pem") != "" {
		b.t.Error("a namespace that is not selected has roots")
	}
	// The system namespace always is part of it: node proxies go on.
	local := b.pod("istio-system", "ztunnel-1")
	if err := sign(b.t, r.dial(b.t), b.token("istio-system", "ztunnel", local, "istio-ca"), "Kubernetes", ""); err != nil {
		b.t.Errorf("a node proxy: %v", err)
	}
	b.setMesh("accessLogFile: /dev/stdout")
	w.until("the pod is back", func() bool { return w.resources[webUID] != nil })
}

func (b *kubeBed) outage(r *replica) {
	w := r.subscribe(b.t)
	w.until("the pod", func() bool { return w.resources[webUID] != nil })
	local := b.pod("istio-system", "ztunnel-1")
	bound, unbound, other := b.token("istio-system", "ztunnel", local, "istio-ca"), b.token("istio-system", "ztunnel", nil, "istio-ca"), b.token("istio-system", "ztunnel", local, "vault")
	conn := r.dial(b.t)
	b.server.StopAPI()
	<-time.After(4 * time.Second) // longer than leases
	r.page(b.t, "/ready")
	if err := sign(b.t, conn, bound, "Kubernetes", "spiffe://cluster.local/ns/shop/sa/web"); err != nil {
		b.t.Errorf("the token of a known pod, which nobody has asked the API server about: %v", err)
	}
	for name, token := range map[string]string{"a token that is bound to no pod": unbound, "a token for another audience": other, "one with a signature that is none": bound + "x"} {
		if err := sign(b.t, conn, token, "Kubernetes", ""); status.Code(err) != codes.Unauthenticated {
			b.t.Errorf("%s: %v", name, err)
		}
	}
	late := r.subscribe(b.t)
	late.until("a new client gets what is known", func() bool { return late.resources[webUID] != nil && late.resources[webService] != nil })
	if err := b.server.StartAPI(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	b.apply(strings.Replace(nodes[strings.LastIndex(nodes, "---")+4:], "port: 80,", "port: 81,", 1))
	w.until("changes come again", func() bool { return w.resources[webService].GetService().GetPorts()[0].GetServicePort() == 81 })
	b.apply("{apiVersion: v1, kind: Namespace, metadata: {name: after-outage}}")
	b.eventually("somebody leads again", func() bool { return b.configMap("after-outage", "istio-ca-root-cert", "root-cert.pem") != "" })
}

func (b *kubeBed) failover(one, two *replica) {
	one.stop()
	b.apply("{apiVersion: v1, kind: Namespace, metadata: {name: after-failover}}")
	b.eventually("the other replica writes roots", func() bool {
		return b.configMap("after-failover", "istio-ca-root-cert", "root-cert.pem") == two.rootPEM(b.t)
	})
	lease, err := b.api.CoordinationV1().Leases("istio-system").Get(b.t.Context(), "istio-namespace-controller-election", metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != "istiod-b_default" {
		b.t.Errorf("lease %v, %v", lease, err)
	}
}

func (b *kubeBed) plugIn(_, two *replica) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "plugged in"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{7},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		b.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		b.t.Fatal(err)
	}
	issuer, err := x509.ParseCertificate(der)
	if err != nil {
		b.t.Fatal(err)
	}
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}, issuer, key)
	if err != nil {
		b.t.Fatal(err)
	}
	crl := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list})
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "cacerts"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": cert, "tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), "ca.crt": cert, "ca-crl.pem": crl},
	}
	if _, err := b.api.CoreV1().Secrets("istio-system").Create(b.t.Context(), secret, metav1.CreateOptions{}); err != nil {
		b.t.Fatal(err)
	}
	b.eventually("the root is the one that was plugged in", func() bool {
		return strings.TrimSpace(two.rootPEM(b.t)) == strings.TrimSpace(string(cert)) && strings.TrimSpace(b.configMap("shop", "istio-ca-root-cert", "root-cert.pem")) == strings.TrimSpace(string(cert))
	})
	b.eventually("its revocation list is in the namespaces", func() bool { return b.configMap("shop", "istio-ca-crl", "ca-crl.pem") == string(crl) })
	local := b.pod("istio-system", "ztunnel-1")
	if err := sign(b.t, two.dial(b.t), b.token("istio-system", "ztunnel", local, "istio-ca"), "Kubernetes", ""); err != nil {
		b.t.Errorf("with the plugged-in authority: %v", err)
	}
}
