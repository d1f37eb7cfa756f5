{{- define "ztunnel.labels" -}}
app: ztunnel
{{ include "isthmus.labels" (list . "Ztunnel") }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ztunnel.controlPlaneNamespace" -}}{{ .Values.global.istioNamespace | default .Values.istioNamespace }}{{- end -}}

{{- /* ztunnel.controlPlane is the control plane's address. */ -}}
{{- define "ztunnel.controlPlane" -}}
istiod{{ if and .Values.revision (ne .Values.revision "default") }}-{{ .Values.revision }}{{ end }}.{{ include "ztunnel.controlPlaneNamespace" . }}.svc:15012
{{- end -}}

{{- define "ztunnel.openshift" -}}{{ if or (eq (.Values.global.platform | default .Values.platform) "openshift") (hasPrefix "openshift" .Values.profile) }}true{{ end }}{{- end -}}
