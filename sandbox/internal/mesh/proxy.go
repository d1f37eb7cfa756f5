package mesh

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	// StatusPort is where a proxy answers whether it is ready.
	StatusPort = 15021
	// RootCertConfigMap holds the mesh's root certificates, in every namespace.
	RootCertConfigMap = "istio-ca-root-cert"
	// RootCertKey is the file among it.
	RootCertKey = "root-cert.pem"

	proxyImage     = "docker.io/isthmus/waypoint:dev"
	controlPlane   = "istiod.istio-system.svc:15012"
	metricsPort    = 15020
	prometheusPort = 15090
	// proxyGrace is how long a proxy may take to let its requests end.
	proxyGrace = int64(30)
)

// Proxy is a pod that runs the L7 proxy.
type Proxy struct {
	Role                            string // waypoint, or router
	Namespace, Name, ServiceAccount string // of its Deployment
}

// ProxyPod is the pod of a proxy: a waypoint or a gateway.
func ProxyPod(p Proxy) corev1.PodSpec {
	grace := proxyGrace
	return corev1.PodSpec{
		ServiceAccountName: p.ServiceAccount, TerminationGracePeriodSeconds: &grace,
		Containers: []corev1.Container{proxyContainer(p)},
		Volumes:    proxyVolumes(),
	}
}

func proxyContainer(p Proxy) corev1.Container {
	port := func(name string, number int32) corev1.ContainerPort {
		return corev1.ContainerPort{Name: name, ContainerPort: number, Protocol: corev1.ProtocolTCP}
	}
	ready := func(failures int32) *corev1.Probe {
		return &corev1.Probe{
			ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
				Path: "/healthz/ready", Port: intstr.FromInt32(StatusPort), Scheme: corev1.URISchemeHTTP,
			}},
			PeriodSeconds: 1, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: failures,
		}
	}
	return corev1.Container{
		Name: "istio-proxy", Image: proxyImage,
		Args:           []string{"proxy", p.Role, "--domain", "$(POD_NAMESPACE).svc.cluster.local", "--serviceCluster", p.Name + ".$(POD_NAMESPACE)"},
		Env:            proxyEnv(p),
		Ports:          []corev1.ContainerPort{port("metrics", metricsPort), port("status-port", StatusPort), port("http-envoy-prom", prometheusPort)},
		StartupProbe:   ready(30),
		ReadinessProbe: ready(4),
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi")},
		},
		VolumeMounts: []corev1.VolumeMount{
			{Name: "istiod-ca-cert", MountPath: "/var/run/secrets/istio", ReadOnly: true},
			{Name: "istio-token", MountPath: "/var/run/secrets/tokens", ReadOnly: true},
			{Name: "istio-podinfo", MountPath: "/etc/istio/pod", ReadOnly: true},
			{Name: "istio-data", MountPath: "/var/lib/istio/data"},
			{Name: "istio-envoy", MountPath: "/etc/istio/proxy"},
			{Name: "workload-socket", MountPath: "/var/run/secrets/workload-spiffe-uds"},
		},
	}
}

func proxyEnv(p Proxy) []corev1.EnvVar {
	field := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
	}
	value := func(name, text string) corev1.EnvVar { return corev1.EnvVar{Name: name, Value: text} }
	return []corev1.EnvVar{
		field("POD_NAME", "metadata.name"),
		field("POD_NAMESPACE", "metadata.namespace"),
		field("INSTANCE_IP", "status.podIP"),
		field("HOST_IP", "status.hostIP"),
		field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
		field("ISTIO_META_NODE_NAME", "spec.nodeName"),
		value("PILOT_CERT_PROVIDER", "istiod"),
		value("CA_ADDR", controlPlane),
		value("PROXY_CONFIG", `{"discoveryAddress":`+strconv.Quote(controlPlane)+`}`),
		value("ISTIO_META_CLUSTER_ID", "Kubernetes"),
		value("ISTIO_META_MESH_ID", "cluster.local"),
		value("ISTIO_META_WORKLOAD_NAME", p.Name),
		value("ISTIO_META_OWNER", "kubernetes://apis/apps/v1/namespaces/"+p.Namespace+"/deployments/"+p.Name),
		value("TRUST_DOMAIN", "cluster.local"),
		value("TERMINATION_GRACE_PERIOD_SECONDS", strconv.FormatInt(proxyGrace, 10)),
	}
}

func proxyVolumes() []corev1.Volume {
	empty := func(name string) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
	}
	file := func(path, field string) corev1.DownwardAPIVolumeFile {
		return corev1.DownwardAPIVolumeFile{Path: path, FieldRef: &corev1.ObjectFieldSelector{FieldPath: field}}
	}
	lifetime := int64(43200)
	return []corev1.Volume{
		{Name: "istiod-ca-cert", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: RootCertConfigMap},
		}}},
		{Name: "istio-token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
			ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "istio-token", Audience: "istio-ca", ExpirationSeconds: &lifetime},
		}}}}},
		{Name: "istio-podinfo", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			file("labels", "metadata.labels"), file("annotations", "metadata.annotations"),
		}}}},
		empty("istio-data"), empty("istio-envoy"), empty("workload-socket"),
	}
}
