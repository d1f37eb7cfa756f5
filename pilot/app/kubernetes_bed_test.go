//go:build envtest

package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pilot/internal/leader"
	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
	"github.com/isthmus-mesh/isthmus/pkg/kube/kubetest"
)

// rights are what the control plane's account may do, no more.
const rights = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: istiod}
rules:
- {apiGroups: [""], resources: [namespaces, nodes, pods, services, serviceaccounts], verbs: [get, list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
- {apiGroups: [networking.istio.io, security.istio.io, telemetry.istio.io, extensions.istio.io, policy.isthmus.dev, gateway.networking.k8s.io], resources: ["*"], verbs: [get, list, watch]}
- {apiGroups: [networking.istio.io, security.istio.io, telemetry.istio.io, extensions.istio.io, policy.isthmus.dev, gateway.networking.k8s.io], resources: ["*/status"], verbs: [get, update, patch]}
- {apiGroups: [""], resources: [services/status], verbs: [get, update, patch]}
- {apiGroups: [apiextensions.k8s.io], resources: [customresourcedefinitions], verbs: [get, list, watch]}
- {apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}
- {apiGroups: [""], resources: [configmaps], verbs: [get, list, watch, create]}
- {apiGroups: [""], resources: [configmaps], resourceNames: [istio-ca-root-cert, istio-ca-crl], verbs: [update, patch, delete]}
- {apiGroups: [admissionregistration.k8s.io], resources: [validatingwebhookconfigurations, mutatingwebhookconfigurations], verbs: [get, list, watch]}
- {apiGroups: [admissionregistration.k8s.io], resources: [validatingwebhookconfigurations], resourceNames: [istio-validator-istio-system], verbs: [update, patch]}
- {apiGroups: [apps, autoscaling, policy, ""], resources: [deployments, horizontalpodautoscalers, poddisruptionbudgets, services, serviceaccounts], verbs: [get, list, watch, create, update, patch, delete]}
- {apiGroups: [gateway.networking.k8s.io], resources: [gatewayclasses], verbs: [create, update, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: istiod}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: istiod}
subjects: [{kind: ServiceAccount, name: istiod, namespace: istio-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: istiod, namespace: istio-system}
rules:
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, create, update, patch]}
- {apiGroups: [""], resources: [secrets], verbs: [create]}
- {apiGroups: [""], resources: [secrets], resourceNames: [istio-ca-secret, cacerts], verbs: [get, list, watch, update, patch]}
- {apiGroups: [networking.istio.io], resources: [gateways], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: istiod, namespace: istio-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: istiod}
subjects: [{kind: ServiceAccount, name: istiod, namespace: istio-system}]
`

const systemObjects = `
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: istiod, namespace: istio-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "accessLogFile: /dev/stdout"}
`

// kubeBed is an API server with the objects that an installation makes.
type kubeBed struct {
	t       *testing.T
	server  *apiserver.Server
	api     kubernetes.Interface
	dynamic dynamic.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper
}

func newKubeBed(t *testing.T) *kubeBed {
	t.Helper()
	b := &kubeBed{t: t, server: kubetest.New(t)}
	config := b.server.REST()
	var err error
	if b.api, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	if b.dynamic, err = dynamic.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	b.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(b.api.Discovery()))
	b.apply(systemObjects)
	b.apply(rights)
	return b
}

// apply creates or replaces objects, with their status.
func (b *kubeBed) apply(manifests string) {
	b.t.Helper()
	b.each(manifests, func(o *unstructured.Unstructured, to dynamic.ResourceInterface) error {
		options := metav1.ApplyOptions{FieldManager: "test", Force: true}
		status, has := o.Object["status"]
		delete(o.Object, "status")
		if _, err := to.Apply(b.t.Context(), o.GetName(), o.DeepCopy(), options); err != nil || !has {
			return err
		}
		o.Object["status"] = status
		_, err := to.ApplyStatus(b.t.Context(), o.GetName(), o, options)
		return err
	})
}

func (b *kubeBed) delete(manifests string) {
	b.t.Helper()
	now := int64(0)
	b.each(manifests, func(o *unstructured.Unstructured, to dynamic.ResourceInterface) error {
		return to.Delete(b.t.Context(), o.GetName(), metav1.DeleteOptions{GracePeriodSeconds: &now})
	})
}

func (b *kubeBed) each(manifests string, do func(*unstructured.Unstructured, dynamic.ResourceInterface) error) {
	b.t.Helper()
	for document := range strings.SplitSeq(manifests, "\n---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &o.Object); err != nil {
			b.t.Fatal(err)
		}
		mapping, err := b.mapper.RESTMapping(o.GroupVersionKind().GroupKind(), o.GroupVersionKind().Version)
		if err != nil {
			b.t.Fatal(err)
		}
		to := dynamic.ResourceInterface(b.dynamic.Resource(mapping.Resource))
		if o.GetNamespace() != "" {
			to = b.dynamic.Resource(mapping.Resource).Namespace(o.GetNamespace())
		}
		if err := do(o, to); err != nil {
			b.t.Fatalf("%s %s/%s: %v", o.GetKind(), o.GetNamespace(), o.GetName(), err)
		}
	}
}

// replica is a control plane on the cluster.
type replica struct {
	Addresses
	roots string // file
	stop  func()
}

// start runs a control plane with the rights of its account, and returns at once.
func (b *kubeBed) start(pod string, edit func(*Config)) (started func() *replica) {
	b.t.Helper()
	rest, err := b.server.Account(b.t.Context(), types.NamespacedName{Namespace: "istio-system", Name: "istiod"}, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	cfg := Default()
	cfg.HTTPAddr, cfg.GRPCAddr, cfg.SecureGRPCAddr, cfg.MonitoringAddr, cfg.HTTPSAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.Kubernetes, cfg.PodName = rest, pod
	cfg.LeaderTiming = leader.Timing{Lease: 3 * time.Second, Renew: 2 * time.Second, Retry: 300 * time.Millisecond}
	cfg.RootCertOut = filepath.Join(b.t.TempDir(), "root-cert.pem")
	cfg.Log = slog.New(slog.NewTextHandler(b.t.Output(), nil)).With("replica", pod)
	edit(&cfg)
	up := make(chan Addresses, 1)
	cfg.Started = func(a Addresses) { up <- a }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("Run of %s: %v", pod, err)
		}
	}
	b.t.Cleanup(stop)
	return func() *replica {
		b.t.Helper()
		select {
		case a := <-up:
			return &replica{a, cfg.RootCertOut, stop}
		case err := <-ended:
			ended <- nil
			b.t.Fatalf("Run of %s: %v", pod, err)
		case <-time.After(time.Minute):
			b.t.Fatalf("%s did not start", pod)
		}
		return nil
	}
}

func (b *kubeBed) eventually(what string, ok func() bool) {
	b.t.Helper()
	wait.Until(b.t, 2*time.Minute, what, ok, nil)
}

func (b *kubeBed) configMap(namespace, name, key string) string {
	m, err := b.api.CoreV1().ConfigMaps(namespace).Get(b.t.Context(), name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		b.t.Fatal(err)
	}
	if err != nil {
		return ""
	}
	return m.Data[key]
}

func (r *replica) rootPEM(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(r.roots)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// dial connects to the secure port as whoever trusts the roots.
func (r *replica) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(r.SecureGRPC.String(), grpc.WithTransportCredentials(credentials.NewTLS(r.clientTLS(t, "istiod.istio-system.svc"))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (r *replica) clientTLS(t *testing.T, name string) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(r.rootPEM(t)))
	return &tls.Config{RootCAs: pool, ServerName: name}
}

// page is a debug page.
func (r *replica) page(t *testing.T, path string) string {
	t.Helper()
	return get(t, "http://"+r.HTTP.String()+path)
}

// token is one of an account, bound to a pod unless that is nil.
func (b *kubeBed) token(namespace, account string, pod *corev1.Pod, audience string) string {
	b.t.Helper()
	var meta *metav1.ObjectMeta
	if pod != nil {
		meta = &pod.ObjectMeta
	}
	config, err := b.server.Account(b.t.Context(), types.NamespacedName{Namespace: namespace, Name: account}, meta, audience)
	if err != nil {
		b.t.Fatal(err)
	}
	return config.BearerToken
}

func (b *kubeBed) pod(namespace, name string) *corev1.Pod {
	b.t.Helper()
	pod, err := b.api.CoreV1().Pods(namespace).Get(b.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return pod
}

// world is what a client that subscribes to everything knows.
type world struct {
	resources map[string]*workload.Address
	client    *client
}

func (r *replica) subscribe(t *testing.T) *world {
	t.Helper()
	w := &world{map[string]*workload.Address{}, connect(t, r.GRPC.String())}
	w.client.send(&discovery.DeltaDiscoveryRequest{TypeUrl: registry.AddressType})
	return w
}

// until takes responses until ok.
func (w *world) until(what string, ok func() bool) {
	w.client.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			w.client.t.Fatalf("not in time: %s", what)
		}
		r, err := w.client.stream.Recv()
		if errors.Is(err, io.EOF) || err != nil {
			w.client.t.Fatalf("waiting for %s: %v", what, err)
		}
		w.client.send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
		for _, res := range r.GetResources() {
			a := &workload.Address{}
			if err := proto.Unmarshal(res.GetResource().GetValue(), a); err != nil {
				w.client.t.Fatal(err)
			}
			w.resources[res.GetName()] = a
		}
		for _, name := range r.GetRemovedResources() {
			delete(w.resources, name)
		}
	}
}

func asJSON(t *testing.T, text string) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}
