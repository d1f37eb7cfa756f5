package app

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// A tag that is made while the control plane runs is a name of it at once; one that leads to another revision never is.
func TestTagsAreNamesOfTheControlPlane(t *testing.T) {
	b := newSecureBed(t)
	text, err := os.ReadFile(b.roots)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	reach := func(name string) error {
		dialer := &net.Dialer{Timeout: 20 * time.Second}
		conn, err := tls.DialWithDialer(dialer, "tcp", b.addr.SecureGRPC.String(), &tls.Config{RootCAs: pool, ServerName: name, NextProtos: []string{"h2"}})
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	const prod, next = "istiod-revision-tag-prod.istio-system.svc", "istiod-revision-tag-next.istio-system.svc"
	if reach(prod) == nil {
		t.Error("it is reached by a tag that there is not")
	}
	const service = `apiVersion: v1
kind: Service
metadata: {name: istiod-revision-tag-%[1]s, namespace: istio-system, labels: {app: istiod, istio.io/tag: %[1]s, istio.io/rev: %[2]s}}
spec: {clusterIP: 10.96.200.%[3]d, ports: [{name: https-dns, port: 15012}], selector: {app: istiod}}
`
	write(t, b.dir, "next.yaml", fmt.Sprintf(service, "next", "1-99", 1))
	write(t, b.dir, "prod.yaml", fmt.Sprintf(service, "prod", "default", 2))
	var last error
	wait.Until(t, patience, "the tag is a name of the control plane", func() bool { last = reach(prod); return last == nil }, func() string { return last.Error() })
	for _, name := range []string{prod + ".cluster.local", "istiod.istio-system.svc"} {
		if err := reach(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if reach(next) == nil {
		t.Error("it is reached by a tag of another revision")
	}
}
