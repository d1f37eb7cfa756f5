package mesh

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// meshDefaults is what the mesh configuration says in every profile.
const meshDefaults = `defaultConfig:
  discoveryAddress: ` + controlPlane + `
rootNamespace: ` + Namespace + `
trustDomain: cluster.local
`

// Config is the ConfigMap of the mesh configuration. accessLog has proxies log every request.
func Config(accessLog bool) *corev1.ConfigMap {
	text := meshDefaults
	if accessLog {
		text = "accessLogFile: /dev/stdout\n" + text
	}
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: "istio", Labels: map[string]string{"istio.io/rev": "default"}},
		Data:       map[string]string{"mesh": text},
	}
}
