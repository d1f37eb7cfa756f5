package main

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Sizes of the layout beside the services: so many of these are in one namespace, and on one node.
const (
	servicesPerNamespace = 100
	podsPerNode          = 50
	// writers is how many requests are made at once.
	writers = 64
)

// mesh creates the objects of a layout. All of it follows from the numbers.
type mesh struct {
	layout
	client kubernetes.Interface
	// changed is how many pods have been changed, for an earlier layout: they have versions that changes may give again.
	changed int
}

func newMesh(config *rest.Config) (*mesh, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1 // no limit
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &mesh{client: client}, nil
}

func namespaceOf(service int) string { return fmt.Sprintf("ns-%d", service/servicesPerNamespace) }

func podName(service, pod int) string { return fmt.Sprintf("svc-%d-7d9f8b6c5-%05d", service, pod) }

// grow creates what a layout has more than what there is, which has no services or as many.
func (m *mesh) grow(ctx context.Context, to layout) error {
	from := m.layout
	m.layout = to
	if from.services == 0 {
		namespaces := []string{"istio-system"}
		for i := range (to.services + servicesPerNamespace - 1) / servicesPerNamespace {
			namespaces = append(namespaces, fmt.Sprintf("ns-%d", i))
		}
		if err := parallel(ctx, len(namespaces), func(i int) error { return m.namespace(ctx, namespaces[i]) }); err != nil {
			return fmt.Errorf("create namespaces: %w", err)
		}
		if err := parallel(ctx, to.services, func(i int) error { return m.service(ctx, i) }); err != nil {
			return fmt.Errorf("create services: %w", err)
		}
	}
	first, more := from.pods, to.pods-from.pods
	oldNodes, nodes := m.nodes(from.pods), m.nodes(to.pods)
	if err := parallel(ctx, nodes-oldNodes, func(i int) error { return m.node(ctx, oldNodes+i) }); err != nil {
		return fmt.Errorf("create nodes: %w", err)
	}
	if err := parallel(ctx, to.services*more, func(i int) error { return m.pod(ctx, i/more, first+i%more) }); err != nil {
		return fmt.Errorf("create pods: %w", err)
	}
	if err := parallel(ctx, to.services, func(i int) error { return m.slice(ctx, i, first) }); err != nil {
		return fmt.Errorf("create endpoint slices: %w", err)
	}
	return nil
}

// nodes is how many there are for that many pods of each service.
func (m *mesh) nodes(pods int) int { return (m.services*pods + podsPerNode - 1) / podsPerNode }

// number of a pod among all, which does not change when there are more of each service.
func (m *mesh) number(service, pod int) int { return pod*m.services + service }

// parallel calls do for each of n, several at once, until one fails.
func parallel(ctx context.Context, n int, do func(int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := range n {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

func (m *mesh) namespace(ctx context.Context, name string) error {
	_, err := m.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"istio.io/dataplane-mode": "ambient"}}}, metav1.CreateOptions{})
	return err
}

func (m *mesh) node(ctx context.Context, i int) error {
	_, err := m.client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: fmt.Sprintf("node-%d", i), Labels: map[string]string{"topology.kubernetes.io/region": "region", "topology.kubernetes.io/zone": fmt.Sprintf("zone-%d", i%3), "kubernetes.io/hostname": fmt.Sprintf("node-%d", i)},
	}}, metav1.CreateOptions{})
	return err
}

func (m *mesh) service(ctx context.Context, i int) error {
	_, err := m.client.CoreV1().Services(namespaceOf(i)).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("svc-%d", i), Labels: map[string]string{"app": fmt.Sprintf("svc-%d", i)}},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": fmt.Sprintf("svc-%d", i)},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("http")}, {Name: "metrics", Port: 9090, TargetPort: intstr.FromInt32(9090)}},
		},
	}, metav1.CreateOptions{})
	return err
}

// address is that of a pod, which is unique.
func (m *mesh) address(service, pod int) netip.Addr {
	n := m.number(service, pod)
	return netip.AddrFrom4([4]byte{10, byte(128 + n>>16), byte(n >> 8), byte(n)})
}

// pod is about as large as one that a Deployment makes.
func (m *mesh) pod(ctx context.Context, service, index int) error {
	app, yes := fmt.Sprintf("svc-%d", service), true
	quantity := resource.MustParse("100m")
	created, err := m.client.CoreV1().Pods(namespaceOf(service)).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: podName(service, index), Labels: map[string]string{"app": app, "version": "v1", "pod-template-hash": "7d9f8b6c5"},
			Annotations:     map[string]string{"ambient.istio.io/redirection": "enabled", "prometheus.io/scrape": "true", "prometheus.io/port": "9090"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: app + "-7d9f8b6c5", UID: types.UID(app), Controller: &yes, BlockOwnerDeletion: &yes}},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: app, NodeName: fmt.Sprintf("node-%d", m.number(service, index)/podsPerNode),
			Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: app}}}}, {Name: "tmp"}},
			Containers: []corev1.Container{{
				Name: "app", Image: "registry.example.com/team/" + app + ":v1.2.3",
				Ports:          []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {Name: "metrics", ContainerPort: 9090}},
				Env:            []corev1.EnvVar{{Name: "LOG_LEVEL", Value: "info"}, {Name: "DATABASE", Value: "postgres://db." + app + ".svc:5432/app"}, {Name: "POD_IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}}},
				Resources:      corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": quantity}, Limits: corev1.ResourceList{"cpu": quantity}},
				VolumeMounts:   []corev1.VolumeMount{{Name: "config", MountPath: "/etc/app"}, {Name: "tmp", MountPath: "/tmp"}},
				ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(8080)}}},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	ip := m.address(service, index).String()
	now := metav1.Now()
	created.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, HostIP: "10.0.0.1", StartTime: &now}
	for _, condition := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled} {
		created.Status.Conditions = append(created.Status.Conditions, corev1.PodCondition{Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	created.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", Ready: true, Image: created.Spec.Containers[0].Image, ImageID: "sha256:0123456789abcdef", ContainerID: "containerd://0123456789abcdef", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}}
	_, err = m.client.CoreV1().Pods(created.Namespace).UpdateStatus(ctx, created, metav1.UpdateOptions{})
	return err
}

// slice has the pods of a service from the first on.
func (m *mesh) slice(ctx context.Context, service, first int) error {
	name, port, portName, protocol, ready := fmt.Sprintf("svc-%d", service), int32(8080), "http", corev1.ProtocolTCP, true
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: fmt.Sprintf("%s-%05d", name, first), Labels: map[string]string{discoveryv1.LabelServiceName: name, discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &protocol}},
	}
	for i := first; i < m.pods; i++ {
		node := fmt.Sprintf("node-%d", m.number(service, i)/podsPerNode)
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{m.address(service, i).String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}, NodeName: &node,
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: namespaceOf(service), Name: podName(service, i)},
		})
	}
	_, err := m.client.DiscoveryV1().EndpointSlices(namespaceOf(service)).Create(ctx, slice, metav1.CreateOptions{})
	return err
}

// change makes one pod, the n-th since the layout was made, another version of its service, which ztunnels are told by this name.
func (m *mesh) change(ctx context.Context, n int, version string) error {
	// Spread over services, no pod twice: one that has the version already would not change.
	n += m.changed
	service, index := n%m.services, n/m.services%m.pods
	patch := fmt.Sprintf(`{"metadata":{"labels":{"version":%q}}}`, version)
	_, err := m.client.CoreV1().Pods(namespaceOf(service)).Patch(ctx, podName(service, index), types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}
