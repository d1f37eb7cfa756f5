package apiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// ready is how long a server may take to answer; a busy machine needs tens of seconds.
const ready = 3 * time.Minute

// Config says how to run a server.
type Config struct {
	// Bin has the programs etcd and kube-apiserver; Find finds it.
	Bin string
	// CRDs are files of CustomResourceDefinitions to apply at the start.
	CRDs []string
	// Flags are added to those of kube-apiserver.
	Flags []string
	// Parent of the directory with all data; empty is that for temporary files.
	Parent string
}

// Server is a running API server.
type Server struct {
	cfg    Config
	dir    string
	pki    *authority
	admin  *rest.Config
	etcd   int // ports
	peer   int
	secure int

	// guarded by mu
	mu    sync.Mutex
	store *child
	api   *child
}

// Find returns the directory of the programs that `make envtest` builds in the repository that the working directory is part of.
func Find() (bin, root string, err error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return "", "", errors.New("find the API server's programs: not inside of the repository")
		}
	}
	bin = filepath.Join(dir, "out", "k8s", "bin")
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			return "", "", fmt.Errorf("find the API server's programs: %w: run make envtest, which builds them", err)
		}
	}
	return bin, dir, nil
}

// Start runs etcd and kube-apiserver and returns when they serve and the CRDs are established. The caller stops the server.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	s, err := try(ctx, cfg)
	for range 2 { // somebody may have been faster to take a port
		if !errors.Is(err, errEnded) {
			break
		}
		s, err = try(ctx, cfg)
	}
	return s, err
}

// errEnded is the end of a child that was to serve.
var errEnded = errors.New("it ended")

func try(ctx context.Context, cfg Config) (*Server, error) {
	dir, err := os.MkdirTemp(cfg.Parent, "apiserver-")
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, dir: dir}
	if err := s.start(ctx); err != nil {
		err = fmt.Errorf("start an API server: %w\n%s", err, s.logs())
		s.Stop()
		return nil, err
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	var err error
	if s.pki, err = newAuthority(); err != nil {
		return err
	}
	if err := s.pki.writeFiles(s.dir); err != nil {
		return err
	}
	for _, port := range []*int{&s.etcd, &s.peer, &s.secure} {
		if *port, err = freePort(); err != nil {
			return err
		}
	}
	if s.admin, err = s.As("admin", "system:masters"); err != nil {
		return err
	}
	if s.store, err = spawn(filepath.Join(s.cfg.Bin, "etcd"), filepath.Join(s.dir, "etcd.log"), s.etcdFlags()...); err != nil {
		return err
	}
	if err := s.StartAPI(ctx); err != nil {
		return err
	}
	return ApplyCRDs(ctx, s.admin, s.cfg.CRDs...)
}

// freePort is free at this moment. It is below the ports that the kernel gives away, so that no connection and no listener of anybody
// takes it before the child does, or while the API server is stopped.
func freePort() (int, error) {
	for {
		port := 10000 + rand.IntN(20000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, err
		}
		return port, l.Close()
	}
}

func (s *Server) etcdFlags() []string {
	client := "http://127.0.0.1:" + strconv.Itoa(s.etcd)
	peer := "http://127.0.0.1:" + strconv.Itoa(s.peer)
	return []string{
		"--data-dir=" + filepath.Join(s.dir, "etcd"), "--unsafe-no-fsync", "--quota-backend-bytes=8589934592", "--log-level=warn",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer,
	}
}

func (s *Server) apiFlags() []string {
	file := func(name string) string { return filepath.Join(s.dir, name) }
	return append([]string{
		"--etcd-servers=http://127.0.0.1:" + strconv.Itoa(s.etcd),
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port=" + strconv.Itoa(s.secure), "--endpoint-reconciler-type=none",
		"--tls-cert-file=" + file("server.crt"), "--tls-private-key-file=" + file("server.key"), "--client-ca-file=" + file("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + file("accounts.key"), "--service-account-signing-key-file=" + file("accounts.key"),
		"--api-audiences=https://kubernetes.default.svc,istio-ca",
		"--authorization-mode=Node,RBAC", "--allow-privileged",
		// No controller makes the default account of namespaces.
		"--disable-admission-plugins=ServiceAccount",
		"--service-cluster-ip-range=10.96.0.0/12",
	}, s.cfg.Flags...)
}

// StartAPI runs kube-apiserver, after StopAPI for instance, at the address it had before, and waits until it serves.
func (s *Server) StartAPI(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	api, err := spawn(filepath.Join(s.cfg.Bin, "kube-apiserver"), filepath.Join(s.dir, "kube-apiserver.log"), s.apiFlags()...)
	if err != nil {
		return err
	}
	s.api = api
	ctx, cancel := context.WithTimeout(ctx, ready)
	defer cancel()
	config := rest.CopyConfig(s.admin)
	config.Timeout = 5 * time.Second
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	for {
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-api.ended:
			return fmt.Errorf("kube-apiserver: %w", errEnded)
		case <-s.store.ended:
			return fmt.Errorf("etcd: %w", errEnded)
		case <-ctx.Done():
			return fmt.Errorf("wait for kube-apiserver: %w", err)
		}
	}
}

// StopAPI ends kube-apiserver at once, as an outage does. etcd goes on, so that nothing is lost.
func (s *Server) StopAPI() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.api.kill()
}

// Stop ends everything and removes the data.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.api.kill()
	s.store.kill()
	_ = os.RemoveAll(s.dir) // what is left is in a directory for temporary files
}

// Dir is where the data and the logs are, until Stop.
func (s *Server) Dir() string { return s.dir }

// Host is the address of the server.
func (s *Server) Host() string { return "https://127.0.0.1:" + strconv.Itoa(s.secure) }

// REST returns the configuration of a client that may do everything.
func (s *Server) REST() *rest.Config { return rest.CopyConfig(s.admin) }

// As returns the configuration of a client with a certificate for the user and groups.
func (s *Server) As(user string, groups ...string) (*rest.Config, error) {
	cert, key, err := s.pki.issue(user, groups...)
	if err != nil {
		return nil, fmt.Errorf("issue the certificate of user %s: %w", user, err)
	}
	return &rest.Config{Host: s.Host(), QPS: 1000, Burst: 2000, TLSClientConfig: rest.TLSClientConfig{CAData: s.pki.pem, CertData: cert, KeyData: key}}, nil
}

// Account returns the configuration of a client with a token of a service account, which must exist. The token is for the
// audiences; none is the API server's. A pod that is given is the one that the token is bound to.
func (s *Server) Account(ctx context.Context, account types.NamespacedName, pod *metav1.ObjectMeta, audiences ...string) (*rest.Config, error) {
	client, err := kubernetes.NewForConfig(s.admin)
	if err != nil {
		return nil, err
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
	if pod != nil {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	}
	token, err := client.CoreV1().ServiceAccounts(account.Namespace).CreateToken(ctx, account.Name, request, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("request a token of service account %s: %w", account, err)
	}
	return &rest.Config{Host: s.Host(), QPS: 1000, Burst: 2000, BearerToken: token.Status.Token, TLSClientConfig: rest.TLSClientConfig{CAData: s.pki.pem}}, nil
}

// logs returns the ends of the children's logs.
func (s *Server) logs() string {
	var out bytes.Buffer
	for _, name := range []string{"etcd.log", "kube-apiserver.log"} {
		data, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			continue
		}
		fmt.Fprintf(&out, "--- %s\n%s\n", name, data[max(0, len(data)-3000):])
	}
	return out.String()
}

// WriteKubeconfig writes a client's configuration, as made by As or Account, to a file.
func WriteKubeconfig(file string, config *rest.Config) error {
	const name = "default"
	out := clientcmdapi.NewConfig()
	out.Clusters[name] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	out.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, Token: config.BearerToken}
	out.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	out.CurrentContext = name
	if err := clientcmd.WriteToFile(*out, file); err != nil {
		return fmt.Errorf("write a kubeconfig: %w", err)
	}
	return nil
}
