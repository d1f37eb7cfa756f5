//go:build e2e

package suites

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

var _ = Describe("An authority that is plugged in", Ordered, Serial, SpecPriority(-8), func() {
	const ns = "e2e-authority"
	// The client's certificate is of the first authority, the server's of the second one, under one root.
	var root, first, second authority
	BeforeAll(func(ctx SpecContext) {
		root = newAuthority("e2e root", 1, nil)
		first, second = newAuthority("e2e first", 2, &root), newAuthority("e2e second", 3, &root)
		DeferCleanup(func(ctx SpecContext) {
			within(ctx, func(ctx context.Context) error {
				return cluster.Client.CoreV1().Secrets(lab.SystemNamespace).Delete(ctx, "cacerts", metav1.DeleteOptions{})
			})
			upgrade(ctx) // the installation as it was, and who is running anew with the mesh's own root
			replaceMesh(ctx)
		})
		plugIn(ctx, first, root.list())
		upgrade(ctx, "values.global.peerCaCrl.enabled=true")
		replaceMesh(ctx)
		Eventually(ctx, func() (string, error) {
			return inConfigMap(ctx, lab.SystemNamespace, "istio-ca-root-cert", "root-cert.pem")
		}).
			WithTimeout(patience).Should(ContainSubstring(strings.TrimSpace(string(root.pem()))))
		namespace(ctx, ns, ambient())
		deploy(ctx, ns, []string{"client"}, clientManifest("client"))
		enrolled(ctx, ns, "app=client")
		holds(ctx, ns, "client", first)
		plugIn(ctx, second, root.list())
		// Until the control plane signs with it: a pod that comes earlier has the certificate of the first.
		issuing(ctx, ns, second)
		deploy(ctx, ns, []string{"echo-v1"}, echoManifest("v1", 1))
		enrolled(ctx, ns, "app=echo")
		holds(ctx, ns, "echo-v1", second)
		answers(ctx, ns, "client", "200", "http://echo/")
	})

	// revoke has the root revoke an authority, and waits until that has reached the namespaces; the nodes follow.
	revoke := func(ctx context.Context, signing authority, revoked ...authority) {
		GinkgoHelper()
		list := root.list(revoked...)
		plugIn(ctx, signing, list)
		Eventually(ctx, func() (string, error) { return inConfigMap(ctx, lab.SystemNamespace, "istio-ca-crl", "ca-crl.pem") }).
			WithTimeout(patience).Should(Equal(string(list)))
	}

	for _, side := range []struct{ name, reporter string }{
		{"refuses servers of an authority that is revoked [TestZtunnelCrlOutbound]", "source"},
		{"refuses clients of an authority that is revoked [TestZtunnelCrlInbound]", "destination"},
	} {
		It(side.name, func(ctx SpecContext) {
			reporter, of := side.reporter, second
			if reporter == "destination" {
				of = first
			}
			answers(ctx, ns, "client", "200", "http://echo/")
			before := refusals(ctx, reporter)
			revoke(ctx, second, of)
			Eventually(ctx, func() string { return curl(ctx, ns, "client", "http://echo/").Code }).WithTimeout(patience).Should(Equal("000"))
			stays(ctx, ns, "client", "000", "http://echo/")
			Eventually(ctx, func() float64 { return refusals(ctx, reporter) }).Should(BeNumerically(">", before))
			// No proxy is restarted either way.
			revoke(ctx, second)
			Eventually(ctx, func() string { return curl(ctx, ns, "client", "http://echo/").Code }).WithTimeout(patience).Should(Equal("200"))
			stays(ctx, ns, "client", "200", "http://echo/")
		})
	}

	It("signs with its next certificate when that is replaced [TestIntermediateCertificateRefresh]", func(ctx SpecContext) {
		upgrade(ctx, "values.global.peerCaCrl.enabled=true", "values.ztunnel.env.SECRET_TTL=2m")
		enrolled(ctx, ns, "app=client")
		holds(ctx, ns, "echo-v1", second)
		answers(ctx, ns, "client", "200", "http://echo/")
		third := newAuthority("e2e third", 4, &root)
		stop := load(ctx, ns, "client", "http://echo/")
		plugIn(ctx, third, root.list())
		for _, account := range []string{"echo-v1", "client"} {
			holds(ctx, ns, account, third)
		}
		stop()
	})
})

// authority is a root, or one below it.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	root *authority // nil for a root
}

func newAuthority(name string, number int64, root *authority) authority {
	GinkgoHelper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(number), Subject: pkix.Name{CommonName: name, Organization: []string{"e2e"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	parent, by := template, key
	if root != nil {
		parent, by = root.cert, root.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	Expect(err).NotTo(HaveOccurred())
	cert, err := x509.ParseCertificate(der)
	Expect(err).NotTo(HaveOccurred())
	return authority{cert, key, root}
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// list is what the authority has revoked.
func (a authority) list(revoked ...authority) []byte {
	GinkgoHelper()
	l := &x509.RevocationList{Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(240 * time.Hour)}
	for _, r := range revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: r.cert.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.cert, a.key)
	Expect(err).NotTo(HaveOccurred())
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// plugIn makes an authority the one that the control plane signs with, and list what peers are told of revoked ones.
func plugIn(ctx context.Context, a authority, list []byte) {
	GinkgoHelper()
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	Expect(err).NotTo(HaveOccurred())
	data := map[string][]byte{
		"ca-cert.pem": a.pem(), "ca-key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), "root-cert.pem": a.root.pem(),
		"cert-chain.pem": append(a.pem(), a.root.pem()...), "ca-crl.pem": list,
	}
	within(ctx, func(ctx context.Context) error {
		secrets := cluster.Client.CoreV1().Secrets(lab.SystemNamespace)
		there, err := secrets.Get(ctx, "cacerts", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, err = secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "cacerts"}, Data: data}, metav1.CreateOptions{})
			return err
		}
		if err != nil {
			return err
		}
		there.Data = data
		_, err = secrets.Update(ctx, there, metav1.UpdateOptions{})
		return err
	})
}

// replaceMesh starts all of it anew: what was signed by another root is gone.
func replaceMesh(ctx context.Context) {
	GinkgoHelper()
	for _, w := range []lab.Workload{lab.Istiod(), lab.Ztunnel()} {
		within(ctx, func(ctx context.Context) error { return cluster.Restart(ctx, w) })
	}
}

func inConfigMap(ctx context.Context, ns, name, key string) (string, error) {
	m, err := cluster.Client.CoreV1().ConfigMaps(ns).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return m.Data[key], nil
}

// issuerOf is the certificate of the authority that has signed the one that ztunnel holds for an account of a namespace.
func issuerOf(ctx context.Context, ns, account string) (*x509.Certificate, error) {
	pods, err := cluster.Pods(ctx, lab.SystemNamespace, "app=ztunnel")
	if err != nil {
		return nil, err
	}
	for i := range pods {
		out, err := cluster.RunIstioctl(ctx, "ztunnel-config", "certificate", pods[i].Name+"."+lab.SystemNamespace, "-o", "json")
		if err != nil {
			return nil, err
		}
		var held []struct {
			Identity  string
			CertChain []struct{ PEM string }
		}
		if err := json.Unmarshal([]byte(out), &held); err != nil {
			return nil, fmt.Errorf("certificates of %s: %w", pods[i].Name, err)
		}
		for _, h := range held {
			if !strings.HasSuffix(h.Identity, "/ns/"+ns+"/sa/"+account) || len(h.CertChain) < 2 {
				continue
			}
			text, err := base64.StdEncoding.DecodeString(h.CertChain[1].PEM)
			if err != nil {
				return nil, err
			}
			block, _ := pem.Decode(text)
			if block == nil {
				return nil, fmt.Errorf("the certificate of %s's issuer is no PEM", h.Identity)
			}
			return x509.ParseCertificate(block.Bytes)
		}
	}
	return nil, fmt.Errorf("no ztunnel has a certificate of %s/%s with its issuer's", ns, account)
}

// holds waits until the certificate of an account is of an authority.
func holds(ctx context.Context, ns, account string, by authority) {
	GinkgoHelper()
	Eventually(ctx, func() (string, error) {
		issuer, err := issuerOf(ctx, ns, account)
		if err != nil {
			return "", err
		}
		if !bytes.Equal(issuer.SubjectKeyId, by.cert.SubjectKeyId) {
			return "another of " + issuer.Subject.CommonName, nil
		}
		return issuer.Subject.CommonName, nil
	}).WithTimeout(patience).Should(Equal(by.cert.Subject.CommonName))
}

// issuing waits until new certificates are of an authority: those of pods with accounts that nobody has had.
func issuing(ctx context.Context, ns string, by authority) {
	GinkgoHelper()
	Eventually(ctx, func() (string, error) {
		account := "probe-" + strconv.FormatInt(time.Now().UnixNano(), 36)
		manifest := clientManifest(account)
		if err := cluster.Apply(ctx, ns, manifest); err != nil {
			return "", err
		}
		defer func() { _ = cluster.Delete(ctx, ns, manifest) }()
		if err := cluster.WaitRollout(ctx, lab.Deployment(ns, account)); err != nil {
			return "", err
		}
		var last error
		for range 20 { // it is asked for when the pod is enrolled
			issuer, err := issuerOf(ctx, ns, account)
			if err == nil {
				return issuer.Subject.CommonName, nil
			}
			last = err
		}
		return "", last
	}).WithTimeout(patience).WithPolling(time.Second).Should(Equal(by.cert.Subject.CommonName))
}

// refusals is how often peers were refused since their certificates are revoked, as one side of tunnels has it.
func refusals(ctx context.Context, reporter string) (total float64) {
	GinkgoHelper()
	text, err := ztunnelMetrics(ctx)
	Expect(err).NotTo(HaveOccurred())
	for _, m := range regexp.MustCompile(`(?m)^istio_crl_policy_rejections_total\{reporter="`+reporter+`"\} (\S+)$`).FindAllStringSubmatch(text, -1) {
		n, err := strconv.ParseFloat(m[1], 64)
		Expect(err).NotTo(HaveOccurred())
		total += n
	}
	return total
}
