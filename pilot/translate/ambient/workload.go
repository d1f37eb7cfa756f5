package ambient

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/pkg/api/workload"
)

// Workload is a workload on the wire, with what others ask about it.
type Workload struct {
	Proto  *workload.Workload
	Labels map[string]string
	// Sidecar says that a proxy beside the workload takes mutual TLS of the mesh at its ports.
	Sidecar bool
	// Leaving says that the workload is being deleted.
	Leaving bool
	// Binding says which waypoint the workload itself asks for.
	Binding Binding
}

// Key is the uid.
func (w *Workload) Key() string { return w.Proto.Uid }

// Equal compares by content.
func (w *Workload) Equal(o *Workload) bool {
	return proto.Equal(w.Proto, o.Proto) && mapsEqual(w.Labels, o.Labels) && w.Sidecar == o.Sidecar && w.Leaving == o.Leaving && w.Binding.Waypoint == o.Binding.Waypoint && w.Binding.Reason == o.Binding.Reason
}

// Surroundings is what a workload's translation depends on beside its own object.
type Surroundings struct {
	Mesh      Mesh
	Namespace *corev1.Namespace // nil when it does not exist
	Node      *corev1.Node      // nil when unknown
	// Services returns those of the workload's namespace that may select a workload with these labels; it may return more.
	Services func(labels map[string]string) []*Service
	// Named returns the slices that name the pod; nil where no slice names any.
	Named func(pod string) []NamedSlice
	// Policies returns those that may apply by selector; it may return more.
	Policies func(labels map[string]string) []*Policy
	// PeerAuths are those of the namespace and of the root namespace.
	PeerAuths []*PeerAuthentication
	Waypoints Waypoints
}

// PodWorkload translates a Pod; nil while it has no address, and once it has ended.
func PodWorkload(in Surroundings, pod *Pod) *Workload {
	if len(pod.IPs) == 0 || pod.Ended() {
		return nil
	}
	name := workloadName(pod)
	canonical, revision := canonicalName(pod.Labels, name)
	w := &workload.Workload{
		Uid:               in.Mesh.ClusterID + "//Pod/" + pod.Namespace + "/" + pod.Name,
		Name:              pod.Name,
		Namespace:         pod.Namespace,
		Addresses:         rawAddresses(pod.IPs),
		Network:           in.Mesh.networkOf(pod.Labels, pod.IPs...),
		TrustDomain:       in.Mesh.wireTrustDomain(),
		ServiceAccount:    pod.Account,
		Node:              pod.Node,
		CanonicalName:     canonical,
		CanonicalRevision: revision,
		WorkloadType:      workload.WorkloadType_POD,
		WorkloadName:      name,
		ClusterId:         in.Mesh.ClusterID,
		Locality:          PodLocality(pod, in.Node),
	}
	if pod.HostNetwork {
		w.NetworkMode = workload.NetworkMode_HOST_NETWORK
	}
	if !pod.Ready || pod.DeletionTimestamp != nil {
		w.Status = workload.WorkloadStatus_UNHEALTHY
	}
	setTunnel(w, pod.Labels)
	if pod.Annotations[annotationRedirection] == "enabled" {
		w.TunnelProtocol = workload.TunnelProtocol_HBONE
	}
	if gateway := pod.Labels[labelGatewayName]; gateway != "" {
		if own := in.Waypoints.Get(pod.Namespace + "/" + gateway); own != nil {
			w.ApplicationTunnel = own.Tunnel
		}
	}
	w.Services = map[string]*workload.PortList{}
	for _, s := range in.Services(pod.Labels) {
		if s.Proto.Namespace == pod.Namespace && selects(s.Selector, pod.Labels) {
			w.Services[s.Key()] = servicePorts(s, func(name string) uint32 { return containerPort(pod, name) }, podOverride(s, pod))
		}
	}
	if in.Named != nil {
		join(w, pod, in.Named(pod.Name))
	}
	out := finish(in, w, pod.Labels)
	if pod.Labels[labelGatewayName] != "" {
		// What a gateway sends on is for others; what is sent to it is for itself.
		out.Binding, w.Waypoint = Binding{}, nil
	}
	out.Leaving = pod.DeletionTimestamp != nil
	return out
}

// finish adds what follows from labels: policies and the waypoint.
func finish(in Surroundings, w *workload.Workload, labels map[string]string) *Workload {
	out := &Workload{Proto: w, Labels: labels, Sidecar: labels[labelTLSMode] == "istio", Binding: Bind(labels, w.Namespace, in.Namespace, trafficWorkload, in.Waypoints)}
	w.Waypoint = out.Binding.Ref
	for _, p := range in.Policies(labels) {
		if p.Proto != nil && p.appliesTo(in.Mesh, w.Namespace, labels) {
			w.AuthorizationPolicies = append(w.AuthorizationPolicies, p.Key())
		}
	}
	w.AuthorizationPolicies = append(w.AuthorizationPolicies, effectivePeerAuthentication(in.Mesh, in.PeerAuths, w.Namespace, labels)...)
	slices.Sort(w.AuthorizationPolicies)
	return out
}

// setTunnel marks workloads that speak HBONE themselves.
func setTunnel(w *workload.Workload, labels map[string]string) {
	if slices.Contains(strings.Split(labels[labelTunnel], ","), "http") {
		w.TunnelProtocol, w.NativeTunnel = workload.TunnelProtocol_HBONE, true
	}
}

// workloadName is the name of the controller: of the Deployment when the owner is one of its ReplicaSets.
func workloadName(pod *Pod) string {
	if name := pod.Labels[labelWorkloadName]; name != "" {
		return name
	}
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		if len(pod.OwnerReferences) == 0 {
			return pod.Name
		}
		owner = &pod.OwnerReferences[0]
	}
	switch owner.Kind {
	case "Node": // of a static pod, whose name says more
		return pod.Name
	case "ReplicaSet", "ReplicationController":
		if hash := cmp.Or(pod.Labels[labelPodTemplateHash], pod.Labels[labelRolloutHash]); hash != "" {
			return strings.TrimSuffix(owner.Name, "-"+hash)
		}
	case "Job":
		// A CronJob names its Jobs by the minute in which they were due.
		if at := strings.LastIndexByte(owner.Name, '-'); at > 0 && len(owner.Name)-at-1 >= 8 && strings.Trim(owner.Name[at+1:], "0123456789") == "" {
			return owner.Name[:at]
		}
	}
	return owner.Name
}

func canonicalName(labels map[string]string, workloadName string) (name, revision string) {
	return cmp.Or(labels[labelCanonicalName], labels["app.kubernetes.io/name"], labels["app"], workloadName),
		cmp.Or(labels[labelCanonicalRevision], labels["app.kubernetes.io/version"], labels["version"], "latest")
}

// PodLocality is what the label of the pod says, else its node; nil when neither does. The node may be nil.
func PodLocality(pod *Pod, node *corev1.Node) *workload.Locality {
	if text := pod.Labels[labelLocality]; text != "" {
		return parseLocality(strings.ReplaceAll(text, ".", "/"))
	}
	if node == nil {
		return nil
	}
	return newLocality(node.Labels[labelRegion], node.Labels[labelZone], node.Labels[labelSubzone])
}

func newLocality(region, zone, subzone string) *workload.Locality {
	if region+zone+subzone == "" {
		return nil
	}
	return &workload.Locality{Region: region, Zone: zone, Subzone: subzone}
}

// parseLocality reads region/zone/subzone, of which the latter two may be missing.
func parseLocality(text string) *workload.Locality {
	parts := append(strings.SplitN(text, "/", 3), "", "")
	return newLocality(parts[0], parts[1], parts[2])
}

// containerPort finds a named TCP port, also of init containers that run as long as the pod; 0 when there is none.
func containerPort(pod *Pod, name string) uint32 {
	if port := namedPort(pod.Containers, name); port != 0 {
		return port
	}
	return namedPort(slices.DeleteFunc(slices.Clone(pod.InitContainers), func(c corev1.Container) bool {
		return c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways
	}), name)
}

func namedPort(containers []corev1.Container, name string) uint32 {
	for _, c := range containers {
		for _, p := range c.Ports {
			if p.Name == name && (p.Protocol == "" || p.Protocol == corev1.ProtocolTCP) {
				return uint32(p.ContainerPort)
			}
		}
	}
	return 0
}

// podOverride are the ports that a pod has by the names of a ServiceEntry's ports; nil for a Service, which names targets itself.
func podOverride(s *Service, pod *Pod) map[string]uint32 {
	if s.Entry == "" {
		return nil
	}
	out := map[string]uint32{}
	for _, p := range s.Ports {
		if p.Name != "" {
			out[p.Name] = containerPort(pod, p.Name)
		}
	}
	return out
}

// servicePorts maps a service's ports to a workload's. named resolves a target by name; override, by the port's own name, counts
// first. A port that the workload does not have is left out.
func servicePorts(s *Service, named func(string) uint32, override map[string]uint32) *workload.PortList {
	list := &workload.PortList{}
	for i, p := range s.Proto.Ports {
		target := p.TargetPort
		if name := s.Ports[i].TargetName; name != "" && named != nil {
			target = named(name)
		}
		if port := override[s.Ports[i].Name]; port != 0 {
			target = port
		}
		if target == 0 {
			continue
		}
		list.Ports = append(list.Ports, &workload.Port{ServicePort: p.ServicePort, TargetPort: target, AppProtocol: p.AppProtocol})
	}
	return list
}

// EntryWorkload translates a WorkloadEntry; nil for one that is a socket.
func EntryWorkload(in Surroundings, we *networkingv1.WorkloadEntry) *Workload {
	labels := mergedLabels(we.Labels, we.Spec.GetLabels())
	w := endpointWorkload(in.Mesh, &we.Spec, labels, we.Name)
	if w == nil {
		return nil
	}
	w.Uid = in.Mesh.ClusterID + "/networking.istio.io/WorkloadEntry/" + we.Namespace + "/" + we.Name
	w.Name, w.Namespace = we.Name, we.Namespace
	w.Services = map[string]*workload.PortList{}
	for _, s := range in.Services(labels) {
		if s.Proto.Namespace == we.Namespace && selects(s.Selector, labels) {
			override := we.Spec.GetPorts()
			w.Services[s.Key()] = servicePorts(s, func(name string) uint32 { return override[name] }, override)
		}
	}
	out := finish(in, w, labels)
	out.Sidecar = entrySidecar(&we.Spec, labels)
	return out
}

// entrySidecar is whether a proxy is beside an endpoint that is no pod: the label says so, or else the account that it has.
func entrySidecar(e *networkingapi.WorkloadEntry, labels map[string]string) bool {
	if mode, ok := labels[labelTLSMode]; ok {
		return mode == "istio"
	}
	return e.GetServiceAccount() != ""
}

func mergedLabels(a, b map[string]string) map[string]string {
	out := make(map[string]string, len(a)+len(b))
	for k, v := range a {
		out[k] = v
	}
	for k, v := range b {
		out[k] = v
	}
	return out
}

// endpointWorkload has what WorkloadEntries and the endpoints of ServiceEntries have in common.
func endpointWorkload(mesh Mesh, e *networkingapi.WorkloadEntry, labels map[string]string, name string) *workload.Workload {
	if strings.HasPrefix(e.GetAddress(), "unix://") {
		return nil
	}
	name = cmp.Or(labels[labelWorkloadName], name)
	canonical, revision := canonicalName(labels, name)
	address, _ := netip.ParseAddr(e.GetAddress()) // it may be a hostname
	w := &workload.Workload{
		Network:           cmp.Or(e.GetNetwork(), mesh.networkOf(labels, address)),
		TrustDomain:       mesh.wireTrustDomain(),
		ServiceAccount:    cmp.Or(e.GetServiceAccount(), "default"),
		CanonicalName:     canonical,
		CanonicalRevision: revision,
		WorkloadType:      workload.WorkloadType_POD,
		WorkloadName:      name,
		ClusterId:         mesh.ClusterID,
		Locality:          parseLocality(cmp.Or(e.GetLocality(), strings.ReplaceAll(labels[labelLocality], ".", "/"))),
	}
	if e.GetWeight() > 0 {
		w.Capacity = wrapperspb.UInt32(e.GetWeight())
	}
	if ip, err := netip.ParseAddr(e.GetAddress()); err == nil {
		w.Addresses = rawAddresses([]netip.Addr{ip.Unmap()})
	} else {
		w.Hostname = e.GetAddress()
	}
	setTunnel(w, labels)
	return w
}

// InlineWorkloads translates the endpoints of a ServiceEntry. An entry that is resolved by DNS and has none is its own endpoint.
// own are the services of the entry itself.
func InlineWorkloads(in Surroundings, se *networkingv1.ServiceEntry, own []*Service) []*Workload {
	endpoints := se.Spec.GetEndpoints()
	dns := se.Spec.GetResolution() == networkingapi.ServiceEntry_DNS || se.Spec.GetResolution() == networkingapi.ServiceEntry_DNS_ROUND_ROBIN
	var out []*Workload
	if len(endpoints) == 0 && dns && se.Spec.GetWorkloadSelector() == nil {
		for _, s := range own {
			if !strings.HasPrefix(s.Proto.Hostname, "*") {
				for _, w := range inlineWorkload(in, se, &networkingapi.WorkloadEntry{Address: s.Proto.Hostname}, []*Service{s}) {
					w.Binding, w.Proto.Waypoint = Binding{}, nil // nobody can connect to it but by its service
					out = append(out, w)
				}
			}
		}
		return out
	}
	for _, e := range endpoints {
		out = append(out, inlineWorkload(in, se, e, own)...)
	}
	return out
}

func inlineWorkload(in Surroundings, se *networkingv1.ServiceEntry, e *networkingapi.WorkloadEntry, own []*Service) []*Workload {
	labels := mergedLabels(se.Labels, e.GetLabels())
	// What binds the services of the entry to a waypoint does not bind its endpoints.
	if e.GetLabels()[labelUseWaypoint] == "" {
		delete(labels, labelUseWaypoint)
	}
	w := endpointWorkload(in.Mesh, e, labels, se.Name)
	if w == nil || len(own) == 0 {
		return nil
	}
	w.Uid = in.Mesh.ClusterID + "/networking.istio.io/ServiceEntry/" + se.Namespace + "/" + se.Name + "/" + e.GetAddress()
	w.Name, w.Namespace = se.Name, se.Namespace
	w.Services = map[string]*workload.PortList{}
	for _, s := range own {
		w.Services[s.Key()] = servicePorts(s, nil, e.GetPorts())
	}
	out := finish(in, w, labels)
	out.Sidecar = entrySidecar(e, labels)
	return []*Workload{out}
}

// SliceWorkloads translates the endpoints of an EndpointSlice that are not pods, such as the API server's. s is the Service
// that the slice belongs to.
func SliceWorkloads(mesh Mesh, slice *discoveryv1.EndpointSlice, s *Service) []*Workload {
	if slice.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	ports := slicePorts(s, sliceTargets(slice))
	var out []*Workload
	for _, e := range slice.Endpoints {
		if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
			continue
		}
		for _, text := range e.Addresses {
			if ip, err := netip.ParseAddr(text); err == nil {
				out = append(out, &Workload{Proto: sliceWorkload(mesh, slice, s, e, ip, ports)})
			}
		}
	}
	return out
}

func sliceWorkload(mesh Mesh, slice *discoveryv1.EndpointSlice, s *Service, e discoveryv1.Endpoint, ip netip.Addr, ports []*workload.Port) *workload.Workload {
	w := &workload.Workload{
		Uid:               mesh.ClusterID + "/discovery.k8s.io/EndpointSlice/" + slice.Namespace + "/" + slice.Name + "/" + ip.String(),
		Name:              slice.Name,
		Namespace:         slice.Namespace,
		Addresses:         rawAddresses([]netip.Addr{ip.Unmap()}),
		Network:           mesh.Network,
		TrustDomain:       mesh.wireTrustDomain(),
		ServiceAccount:    "default",
		CanonicalName:     s.Proto.Name,
		CanonicalRevision: "latest",
		WorkloadType:      workload.WorkloadType_POD,
		WorkloadName:      slice.Name,
		ClusterId:         mesh.ClusterID,
		NetworkMode:       workload.NetworkMode_HOST_NETWORK,
		Services:          map[string]*workload.PortList{s.Key(): {Ports: ports}},
	}
	if e.NodeName != nil {
		w.Node = *e.NodeName
	}
	if e.Conditions.Ready != nil && !*e.Conditions.Ready {
		w.Status = workload.WorkloadStatus_UNHEALTHY
	}
	return w
}

// sliceTargets are the ports of a slice's endpoints by their names.
func sliceTargets(slice *discoveryv1.EndpointSlice) map[string]uint32 {
	targets := map[string]uint32{}
	for _, p := range slice.Ports {
		if p.Port != nil && (p.Protocol == nil || *p.Protocol == corev1.ProtocolTCP) {
			portName := ""
			if p.Name != nil {
				portName = *p.Name
			}
			targets[portName] = uint32(*p.Port)
		}
	}
	return targets
}

// slicePorts maps by the port's name, as the endpoint controller does.
func slicePorts(s *Service, targets map[string]uint32) []*workload.Port {
	var out []*workload.Port
	for i, p := range s.Proto.Ports {
		if target := targets[s.Ports[i].Name]; target != 0 {
			out = append(out, &workload.Port{ServicePort: p.ServicePort, TargetPort: target, AppProtocol: p.AppProtocol})
		}
	}
	return out
}
