package deploy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

const (
	// ContainerName is of the container with the proxy.
	ContainerName = "istio-proxy"

	statusPort     = 15021
	metricsPort    = 15020
	prometheusPort = 15090
	proxyUser      = int64(1337)
	// proxyGrace is how long a proxy may take to let its requests end.
	proxyGrace = int64(30)
	graceName  = "TERMINATION_GRACE_PERIOD_SECONDS"
)

// Proxy is what the pod of a proxy is for.
type Proxy struct {
	Role Role
	// Namespace and Name are of its Deployment.
	Namespace, Name, ServiceAccount string
	// Network of the proxy; by default that of Values.
	Network string
	// Config is a proxy configuration in YAML that goes over the default one.
	Config string
}

// PodSpec is the pod of a proxy: a waypoint or a gateway.
func PodSpec(p Proxy, v Values) (corev1.PodSpec, error) {
	v = v.withDefaults()
	config, err := v.proxyConfig(p.Config)
	if err != nil {
		return corev1.PodSpec{}, err
	}
	pod := v.Gateway
	if p.Role == RoleWaypoint {
		pod = v.Waypoint
	}
	grace := proxyGrace
	if pod.TerminationGracePeriodSeconds != nil {
		grace = *pod.TerminationGracePeriodSeconds
	}
	out := corev1.PodSpec{
		ServiceAccountName: p.ServiceAccount, TerminationGracePeriodSeconds: &grace, PriorityClassName: pod.PriorityClassName,
		Affinity: pod.Affinity, TopologySpreadConstraints: pod.TopologySpreadConstraints, NodeSelector: pod.NodeSelector, Tolerations: pod.Tolerations,
		Containers: []corev1.Container{proxyContainer(p, v, pod, config, grace)},
		Volumes:    proxyVolumes(v.TrustBundle),
	}
	for _, name := range v.ImagePullSecrets {
		out.ImagePullSecrets = append(out.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	if p.Role == RoleRouter {
		// The proxy is not root, and listeners may have any port.
		out.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}}}
	}
	return out, nil
}

// proxyConfig is the default proxy configuration with what a Gateway says over it.
func (v Values) proxyConfig(over string) (string, error) {
	config := map[string]any{}
	if len(v.ProxyConfig) > 0 {
		if err := json.Unmarshal(v.ProxyConfig, &config); err != nil {
			return "", fmt.Errorf("default proxy configuration: %w", err)
		}
	}
	if over != "" {
		changes := map[string]any{}
		if err := yaml.UnmarshalStrict([]byte(over), &changes); err != nil {
			return "", fmt.Errorf("annotation %s: %w", annotationProxyConfig, err)
		}
		config = merged(config, changes)
	}
	if address, _ := config["discoveryAddress"].(string); address == "" {
		config["discoveryAddress"] = v.Discovery
	}
	text, err := json.Marshal(config)
	return string(text), err
}

// merged puts the fields of over over those of base, at every depth.
func merged(base, over map[string]any) map[string]any {
	out := make(map[string]any, len(base)+len(over))
	for key, value := range base {
		out[key] = value
	}
	for key, value := range over {
		from, a := out[key].(map[string]any)
		to, b := value.(map[string]any)
		if a && b {
			value = merged(from, to)
		}
		out[key] = value
	}
	return out
}

func proxyContainer(p Proxy, v Values, pod Pod, config string, grace int64) corev1.Container {
	port := func(name string, number int32) corev1.ContainerPort {
		return corev1.ContainerPort{Name: name, ContainerPort: number, Protocol: corev1.ProtocolTCP}
	}
	probe := func(period, failures int32) *corev1.Probe {
		return &corev1.Probe{
			ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
				Path: "/healthz/ready", Port: intstr.FromInt32(statusPort), Scheme: corev1.URISchemeHTTP,
			}},
			PeriodSeconds: period, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: failures,
		}
	}
	ports := []corev1.ContainerPort{port("metrics", metricsPort), port(statusPortName, statusPort), port("http-envoy-prom", prometheusPort)}
	args := []string{
		"proxy", string(p.Role), "--domain", "$(POD_NAMESPACE).svc." + v.Domain, "--serviceCluster", p.Name + ".$(POD_NAMESPACE)",
		"--proxyLogLevel", v.LogLevel, "--proxyComponentLogLevel", v.ComponentLogLevel, "--log_output_level", v.AgentLogLevel,
	}
	if v.LogAsJSON {
		args = append(args, "--log_as_json")
	}
	return corev1.Container{
		Name: ContainerName, Image: v.image(), ImagePullPolicy: v.ImagePullPolicy,
		Args: args, Env: proxyEnv(p, v, config, grace), Ports: ports,
		StartupProbe: probe(1, 30), ReadinessProbe: probe(5, 4),
		Resources:       proxyResources(pod),
		SecurityContext: proxySecurity(),
		VolumeMounts: []corev1.VolumeMount{
			{Name: "workload-socket", MountPath: "/var/run/secrets/workload-spiffe-uds"},
			{Name: "istiod-ca-cert", MountPath: "/var/run/secrets/istio", ReadOnly: true},
			{Name: "istio-data", MountPath: "/var/lib/istio/data"},
			{Name: "istio-envoy", MountPath: "/etc/istio/proxy"},
			{Name: "istio-token", MountPath: "/var/run/secrets/tokens", ReadOnly: true},
			{Name: "istio-podinfo", MountPath: "/etc/istio/pod", ReadOnly: true},
		},
	}
}

func proxyResources(pod Pod) corev1.ResourceRequirements {
	if pod.Resources != nil {
		return *pod.Resources.DeepCopy()
	}
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi")},
	}
}

// proxySecurity is the "restricted" profile of the pod security standards.
func proxySecurity() *corev1.SecurityContext {
	user, group, yes, no := proxyUser, proxyUser, true, false
	return &corev1.SecurityContext{
		RunAsUser: &user, RunAsGroup: &group, RunAsNonRoot: &yes, Privileged: &no, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

func proxyEnv(p Proxy, v Values, config string, grace int64) []corev1.EnvVar {
	field := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
	}
	limit := func(name, of string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: of}}}
	}
	value := func(name, text string) corev1.EnvVar { return corev1.EnvVar{Name: name, Value: text} }
	out := []corev1.EnvVar{
		value("PILOT_CERT_PROVIDER", v.CertProvider),
		value("CA_ADDR", v.CA),
		field("POD_NAME", "metadata.name"),
		field("POD_NAMESPACE", "metadata.namespace"),
		field("INSTANCE_IP", "status.podIP"),
		field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
		field("HOST_IP", "status.hostIP"),
		limit("ISTIO_CPU_LIMIT", "limits.cpu"),
		value("PROXY_CONFIG", config),
		value("ISTIO_META_CLUSTER_ID", v.ClusterID),
		field("ISTIO_META_NODE_NAME", "spec.nodeName"),
		value("ISTIO_META_WORKLOAD_NAME", p.Name),
		value("ISTIO_META_OWNER", "kubernetes://apis/apps/v1/namespaces/"+p.Namespace+"/deployments/"+p.Name),
		value("ISTIO_META_MESH_ID", v.MeshID),
		value("TRUST_DOMAIN", v.TrustDomain),
		value(graceName, strconv.FormatInt(grace, 10)),
	}
	if p.Role == RoleRouter {
		out = append(out, value("ISTIO_META_UNPRIVILEGED_POD", "true"))
	}
	if network := cmp.Or(p.Network, v.Network); network != "" {
		out = append(out, value("ISTIO_META_NETWORK", network))
	}
	return out
}

// rootsVolume has what the control plane's certificate is verified with.
func rootsVolume(bundle string) corev1.VolumeSource {
	if bundle == "" {
		return corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "istio-ca-root-cert"}}}
	}
	return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
		ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: &bundle, Path: "root-cert.pem"},
	}}}}
}

func proxyVolumes(bundle string) []corev1.Volume {
	empty := func(name string, medium corev1.StorageMedium) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}}}
	}
	file := func(path, field string) corev1.DownwardAPIVolumeFile {
		return corev1.DownwardAPIVolumeFile{Path: path, FieldRef: &corev1.ObjectFieldSelector{FieldPath: field}}
	}
	lifetime := int64(43200)
	return []corev1.Volume{
		empty("workload-socket", ""),
		{Name: "istiod-ca-cert", VolumeSource: rootsVolume(bundle)},
		empty("istio-data", ""), empty("istio-envoy", corev1.StorageMediumMemory),
		{Name: "istio-token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
			ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "istio-token", Audience: "istio-ca", ExpirationSeconds: &lifetime},
		}}}}},
		{Name: "istio-podinfo", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			file("labels", "metadata.labels"), file("annotations", "metadata.annotations"),
		}}}},
	}
}
