package deploy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// withDefaults fills in what is not said.
func (v Values) withDefaults() Values {
	v.Hub = cmp.Or(v.Hub, "docker.io/isthmus")
	v.Tag = cmp.Or(v.Tag, "dev")
	v.Image = cmp.Or(v.Image, "proxyv2")
	v.Revision = cmp.Or(v.Revision, defaultRevision)
	v.Domain = cmp.Or(v.Domain, "cluster.local")
	v.TrustDomain = cmp.Or(v.TrustDomain, "cluster.local")
	v.ClusterID = cmp.Or(v.ClusterID, "Kubernetes")
	v.MeshID = cmp.Or(v.MeshID, v.TrustDomain)
	v.Discovery = cmp.Or(v.Discovery, Discovery(v.Revision, "istio-system"))
	v.CA = cmp.Or(v.CA, v.Discovery)
	v.CertProvider = cmp.Or(v.CertProvider, "istiod")
	v.LogLevel = cmp.Or(v.LogLevel, "warning")
	v.ComponentLogLevel = cmp.Or(v.ComponentLogLevel, "misc:error")
	v.AgentLogLevel = cmp.Or(v.AgentLogLevel, "default:info")
	return v
}

// image is the reference of the proxy's image.
func (v Values) image() string {
	if strings.Contains(v.Image, "/") {
		return v.Image
	}
	separator := ":"
	if strings.HasPrefix(v.Tag, "sha256:") {
		separator = "@"
	}
	return v.Hub + "/" + v.Image + separator + v.Tag
}

// chart is the part of a chart's values that is about the proxies deployed here, as the chart names it.
type chart struct {
	Revision string `json:"revision"`
	Global   struct {
		Hub              scalar            `json:"hub"`
		Tag              scalar            `json:"tag"`
		ImagePullPolicy  corev1.PullPolicy `json:"imagePullPolicy"`
		ImagePullSecrets []json.RawMessage `json:"imagePullSecrets"`
		Network          string            `json:"network"`
		MeshID           string            `json:"meshID"`
		TrustDomain      string            `json:"trustDomain"`
		CAAddress        string            `json:"caAddress"`
		CertProvider     string            `json:"pilotCertProvider"`
		LogAsJSON        bool              `json:"logAsJson"`
		PriorityClass    string            `json:"priorityClassName"`
		MultiCluster     struct {
			ClusterName string `json:"clusterName"`
		} `json:"multiCluster"`
		Logging struct {
			Level string `json:"level"`
		} `json:"logging"`
		Proxy struct {
			Image             string                       `json:"image"`
			Domain            string                       `json:"clusterDomain"`
			LogLevel          string                       `json:"logLevel"`
			ComponentLogLevel string                       `json:"componentLogLevel"`
			Resources         *corev1.ResourceRequirements `json:"resources"`
		} `json:"proxy"`
		Waypoint struct {
			Resources                     *corev1.ResourceRequirements      `json:"resources"`
			Affinity                      *corev1.Affinity                  `json:"affinity"`
			TopologySpreadConstraints     []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints"`
			NodeSelector                  map[string]string                 `json:"nodeSelector"`
			Tolerations                   []corev1.Toleration               `json:"tolerations"`
			TerminationGracePeriodSeconds *int64                            `json:"terminationGracePeriodSeconds"`
		} `json:"waypoint"`
	} `json:"global"`
	GatewayClasses map[string]map[string]json.RawMessage `json:"gatewayClasses"`
}

// scalar is a text that people write as a number, too: a tag such as 1.31.
type scalar string

// UnmarshalJSON implements json.Unmarshaler.
func (s *scalar) UnmarshalJSON(data []byte) error {
	if bytes.Equal(data, []byte("null")) {
		return nil
	}
	if data[0] != '"' {
		*s = scalar(data)
		return nil
	}
	return json.Unmarshal(data, (*string)(s))
}

// WithChart returns v with what the values of the control plane's chart say over it. They are JSON, with the chart's names of
// fields; fields that are about something else are left alone.
func (v Values) WithChart(values []byte) (Values, error) {
	if len(bytes.TrimSpace(values)) == 0 {
		return v, nil
	}
	var c chart
	if err := json.Unmarshal(values, &c); err != nil {
		return v, fmt.Errorf("values of the chart: %w", err)
	}
	g := c.Global
	v.Hub, v.Tag, v.Image = cmp.Or(string(g.Hub), v.Hub), cmp.Or(string(g.Tag), v.Tag), cmp.Or(g.Proxy.Image, v.Image)
	v.ImagePullPolicy = cmp.Or(g.ImagePullPolicy, v.ImagePullPolicy)
	v.Network, v.MeshID = cmp.Or(g.Network, v.Network), cmp.Or(g.MeshID, v.MeshID)
	v.ClusterID, v.TrustDomain = cmp.Or(v.ClusterID, g.MultiCluster.ClusterName), cmp.Or(v.TrustDomain, g.TrustDomain)
	v.Domain = cmp.Or(v.Domain, g.Proxy.Domain)
	v.CA, v.CertProvider = cmp.Or(g.CAAddress, v.CA), cmp.Or(g.CertProvider, v.CertProvider)
	v.LogLevel, v.ComponentLogLevel = cmp.Or(g.Proxy.LogLevel, v.LogLevel), cmp.Or(g.Proxy.ComponentLogLevel, v.ComponentLogLevel)
	v.AgentLogLevel, v.LogAsJSON = cmp.Or(g.Logging.Level, v.AgentLogLevel), v.LogAsJSON || g.LogAsJSON
	for _, raw := range g.ImagePullSecrets {
		name, err := secretName(raw)
		if err != nil {
			return v, err
		}
		v.ImagePullSecrets = append(v.ImagePullSecrets, name)
	}
	v.Gateway = Pod{Resources: g.Proxy.Resources, PriorityClassName: g.PriorityClass}
	w := g.Waypoint
	v.Waypoint = Pod{
		Resources: w.Resources, Affinity: w.Affinity, TopologySpreadConstraints: w.TopologySpreadConstraints, NodeSelector: w.NodeSelector,
		Tolerations: w.Tolerations, TerminationGracePeriodSeconds: w.TerminationGracePeriodSeconds, PriorityClassName: g.PriorityClass,
	}
	for class, overlays := range c.GatewayClasses {
		for key, raw := range overlays {
			v = v.WithClass(class, map[string]string{key: overlayText(raw)})
		}
	}
	return v, nil
}

// WithClass returns v with further parameters for the Gateways of a class; where there are some of the same key they are replaced.
func (v Values) WithClass(class string, parameters map[string]string) Values {
	classes := map[string]map[string]string{}
	for name, have := range v.Classes {
		classes[name] = have
	}
	all := map[string]string{}
	for key, text := range classes[class] {
		all[key] = text
	}
	for key, text := range parameters {
		all[key] = text
	}
	classes[class] = all
	v.Classes = classes
	return v
}

// secretName reads an entry of imagePullSecrets: a name, or an object with one.
func secretName(raw json.RawMessage) (string, error) {
	var name string
	if json.Unmarshal(raw, &name) == nil {
		return name, nil
	}
	var ref corev1.LocalObjectReference
	if err := json.Unmarshal(raw, &ref); err != nil || ref.Name == "" {
		return "", fmt.Errorf("values of the chart: global.imagePullSecrets: %s is neither a name nor an object with one", raw)
	}
	return ref.Name, nil
}

// overlayText is an overlay that is written as an object, or as a text with one.
func overlayText(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}
