{{- define "gateway.name" -}}{{ .Values.name | default .Release.Name | trunc 63 | trimSuffix "-" }}{{- end -}}

{{- /* gateway.selector tells the pods: classic Gateways select them by the label istio. */ -}}
{{- define "gateway.selector" -}}
app: {{ .Values.labels.app | default (include "gateway.name" .) | quote }}
istio: {{ .Values.labels.istio | default (include "gateway.name" . | trimPrefix "istio-") | quote }}
{{- end -}}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
{{ include "isthmus.labels" (list . "Gateways") }}
istio.io/rev: {{ .Values.revision | default "default" | quote }}
{{- with omit .Values.labels "app" "istio" }}
{{ toYaml . }}
{{- end }}
{{- with .Values.networkGateway }}
topology.istio.io/network: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "gateway.account" -}}
{{- if .Values.serviceAccount.create -}}{{ .Values.serviceAccount.name | default (include "gateway.name" .) }}{{- else -}}{{ .Values.serviceAccount.name | default "default" }}{{- end -}}
{{- end -}}

{{- /* gateway.istiod is the name of the control plane's Service, and of its account. */ -}}
{{- define "gateway.istiod" -}}
istiod{{ if and .Values.revision (ne .Values.revision "default") }}-{{ .Values.revision }}{{ end }}
{{- end -}}

{{- define "gateway.discovery" -}}
{{ include "gateway.istiod" . }}.{{ .Values.global.istioNamespace }}.svc:15012
{{- end -}}
