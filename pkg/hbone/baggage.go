package hbone

import "strings"

// Workload is what baggage tells about one end of a tunnel. Empty fields are omitted on the wire.
type Workload struct {
	Cluster      string
	Namespace    string
	WorkloadType string // deployment, cronjob, pod or job; names the key of WorkloadName
	WorkloadName string
	Service      string // canonical service name
	Version      string // canonical revision
	Region       string
	Zone         string
}

// Baggage formats w as the value of the baggage header, or "" when all is empty.
func Baggage(w Workload) string {
	kind := w.WorkloadType
	if kind == "" {
		kind = "pod"
	}
	var b strings.Builder
	add := func(prefix, kind, suffix, value string) {
		if value == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(prefix)
		b.WriteString(kind)
		b.WriteString(suffix)
		b.WriteByte('=')
		b.WriteString(value)
	}
	add("k8s.cluster.name", "", "", w.Cluster)
	add("k8s.namespace.name", "", "", w.Namespace)
	add("k8s.", kind, ".name", w.WorkloadName)
	add("service.name", "", "", w.Service)
	add("service.version", "", "", w.Version)
	add("cloud.region", "", "", w.Region)
	add("cloud.availability_zone", "", "", w.Zone)
	return b.String()
}

// ParseBaggage reads a baggage header. Unknown keys and malformed members are ignored: baggage informs
// telemetry, never a decision that needs trust.
func ParseBaggage(s string) Workload {
	var w Workload
	for s != "" {
		var member string
		member, s, _ = strings.Cut(s, ",")
		key, value, ok := strings.Cut(strings.TrimSpace(member), "=")
		if !ok {
			continue
		}
		value, _, _ = strings.Cut(value, ";") // W3C member properties carry nothing for us
		w.set(key, value)
	}
	return w
}

func (w *Workload) set(key, value string) {
	switch key {
	case "k8s.cluster.name":
		w.Cluster = value
	case "k8s.namespace.name":
		w.Namespace = value
	case "k8s.deployment.name":
		w.WorkloadType, w.WorkloadName = "deployment", value
	case "k8s.cronjob.name":
		w.WorkloadType, w.WorkloadName = "cronjob", value
	case "k8s.pod.name":
		w.WorkloadType, w.WorkloadName = "pod", value
	case "k8s.job.name":
		w.WorkloadType, w.WorkloadName = "job", value
	case "service.name":
		w.Service = value
	case "service.version":
		w.Version = value
	case "cloud.region":
		w.Region = value
	case "cloud.availability_zone":
		w.Zone = value
	}
}
