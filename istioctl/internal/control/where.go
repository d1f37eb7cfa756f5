package control

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

const (
	// audience and account are of the tokens that this program asks with.
	audience = "istio-ca"
	account  = "default"
	// rootMap has what the control plane's certificate is signed by.
	rootMap = "istio-ca-root-cert"
	rootKey = "root-cert.pem"
	// patience is for each question unless --request-timeout says otherwise.
	patience = 30 * time.Second
)

func (s Source) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, cmp.Or(s.Globals.Timeout, patience))
}

// targets are the instances to ask.
func (f *Flags) targets(ctx context.Context, s Source) ([]target, error) {
	service := "istiod." + s.Globals.IstioNamespace + ".svc"
	if s.Revision != "" && s.Revision != "default" {
		service = "istiod-" + s.Revision + "." + s.Globals.IstioNamespace + ".svc"
	}
	if f.Address != "" {
		host, _, err := net.SplitHostPort(f.Address)
		if err != nil {
			return nil, fmt.Errorf("--xds-address %q is not HOST:PORT", f.Address)
		}
		transport, err := f.transport(ctx, s, host)
		if err != nil {
			return nil, err
		}
		return []target{{name: f.Address, address: "passthrough:///" + f.Address, options: f.options(transport)}}, nil
	}
	pods, mesh, err := f.pods(ctx, s)
	if err != nil {
		return nil, err
	}
	transport, err := f.transport(ctx, s, service)
	if err != nil {
		return nil, err
	}
	port := f.Port
	if port == 0 || f.Plaintext && port == securePort {
		port = securePort
		if f.Plaintext {
			port = plaintextPort
		}
	}
	var out []target
	for _, pod := range pods {
		dial := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return mesh.Dial(ctx, pod, port) })
		out = append(out, target{name: pod.Name, address: "passthrough:///" + pod.String(), options: append(f.options(transport), dial)})
	}
	return out, nil
}

func (f *Flags) pods(ctx context.Context, s Source) ([]reach.Pod, *reach.Mesh, error) {
	mesh, err := s.Globals.Mesh()
	if err != nil {
		return nil, nil, fmt.Errorf("%w, or the control plane by --xds-address", err)
	}
	if f.Label == "" {
		pods, err := mesh.Istiod(ctx, s.Globals.IstioNamespace, s.Revision)
		return pods, mesh, err
	}
	selector := f.Label
	if s.Revision != "" {
		selector += ",istio.io/rev=" + s.Revision
	}
	pods, err := mesh.Pods(ctx, s.Globals.IstioNamespace, selector)
	if err == nil && len(pods) == 0 {
		err = fmt.Errorf("no pod of namespace %q has the label %s: --xds-label and --istioNamespace say which to ask", s.Globals.IstioNamespace, selector)
	}
	return pods, mesh, err
}

func (f *Flags) options(transport credentials.TransportCredentials) []grpc.DialOption {
	out := []grpc.DialOption{grpc.WithTransportCredentials(transport)}
	if f.Authority != "" {
		out = append(out, grpc.WithAuthority(f.Authority))
	}
	return out
}

// transport is TLS with the control plane, which is expected to have a certificate for a name.
func (f *Flags) transport(ctx context.Context, s Source, name string) (credentials.TransportCredentials, error) {
	if f.Plaintext {
		return insecure.NewCredentials(), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cmp.Or(f.Authority, name), InsecureSkipVerify: f.Insecure}
	if f.CertDir != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(f.CertDir, "cert-chain.pem"), filepath.Join(f.CertDir, "key.pem"))
		if err != nil {
			return nil, fmt.Errorf("client certificate of --cert-dir: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if f.Insecure {
		return credentials.NewTLS(config), nil
	}
	roots, err := f.roots(ctx, s)
	if err != nil {
		return nil, err
	}
	config.RootCAs = roots
	return credentials.NewTLS(config), nil
}

// roots are whom to trust: those in the directory, those that the mesh publishes, or else this machine's.
func (f *Flags) roots(ctx context.Context, s Source) (*x509.CertPool, error) {
	var text []byte
	if f.CertDir != "" {
		data, err := os.ReadFile(filepath.Join(f.CertDir, rootKey))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("roots of --cert-dir: %w", err)
		}
		text = data
	}
	if text == nil {
		text = published(ctx, s)
	}
	if text == nil {
		return nil, nil // this machine's
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate", rootKey)
	}
	return pool, nil
}

// published are the roots that the control plane publishes; nil when they cannot be read, as where there is no cluster.
func published(ctx context.Context, s Source) []byte {
	mesh, err := s.Globals.Mesh()
	if err != nil {
		return nil
	}
	object, err := mesh.Read(ctx, reach.ConfigMap(), s.Globals.IstioNamespace, rootMap)
	if err != nil {
		return nil
	}
	data, _ := object.Object["data"].(map[string]any)
	if text, ok := data[rootKey].(string); ok {
		return []byte(text)
	}
	return nil
}

// token is what to ask with; none over plaintext or with a certificate.
func (f *Flags) token(ctx context.Context, s Source) (string, error) {
	if f.Plaintext || f.CertDir != "" {
		return "", nil
	}
	const otherwise = "ask with a client certificate by --cert-dir, or without TLS by --plaintext"
	mesh, err := s.Globals.Mesh()
	if err != nil {
		return "", fmt.Errorf("a token to ask the control plane with: %w; or %s", err, otherwise)
	}
	client, ok := mesh.Kubernetes()
	if !ok {
		return "", errors.New("a sandbox has no tokens: " + otherwise)
	}
	hour := int64(time.Hour / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}, ExpirationSeconds: &hour}}
	answer, err := client.CoreV1().ServiceAccounts(s.Globals.IstioNamespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("a token of service account %s/%s to ask the control plane with: %w; or %s", s.Globals.IstioNamespace, account, err, otherwise)
	}
	return answer.Status.Token, nil
}
