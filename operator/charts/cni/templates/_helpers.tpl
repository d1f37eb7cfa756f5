{{- define "cni.labels" -}}
k8s-app: istio-cni-node
{{ include "isthmus.labels" (list . "Cni") }}
{{- end -}}

{{- define "cni.openshift" -}}{{ if or (eq (.Values.global.platform | default .Values.platform) "openshift") (hasPrefix "openshift" .Values.profile) }}true{{ end }}{{- end -}}
