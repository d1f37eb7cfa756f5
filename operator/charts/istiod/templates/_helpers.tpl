{{- /* istiod.suffix is "-REVISION" unless the revision is the default one. */ -}}
{{- define "istiod.suffix" -}}
{{- if and .Values.revision (ne .Values.revision "default") -}}-{{ .Values.revision }}{{- end -}}
{{- end -}}

{{- define "istiod.name" -}}istiod{{ include "istiod.suffix" . }}{{- end -}}

{{- define "istiod.revision" -}}{{ .Values.revision | default "default" }}{{- end -}}

{{- define "istiod.labels" -}}
{{ include "istiod.selector" . }}
{{ if not (include "istiod.suffix" .) -}}
istio.io/rev: default
{{ end -}}
{{ include "isthmus.labels" (list . "Pilot") }}
{{- end -}}

{{- /* istiod.cluster tells whether objects of the cluster's scope are installed, istiod.local the same of namespaced ones. */ -}}
{{- define "istiod.cluster" -}}{{ if ne .Values.global.resourceScope "namespace" }}true{{ end }}{{- end -}}
{{- define "istiod.local" -}}{{ if ne .Values.global.resourceScope "cluster" }}true{{ end }}{{- end -}}

{{- /* istiod.meshConfig is the mesh configuration: what the installation knows, under what the user set. */ -}}
{{- define "istiod.meshConfig" -}}
{{- $discovery := printf "%s.%s.svc:15012" (include "istiod.name" .) .Release.Namespace -}}
{{- with .Values.global.remotePilotAddress -}}{{- $discovery = printf "%s:15012" . -}}{{- end -}}
{{- $proxy := dict "discoveryAddress" $discovery -}}
{{- with .Values.global.meshID -}}{{- $_ := set $proxy "meshId" . -}}{{- end -}}
{{- $mesh := dict
  "defaultConfig" $proxy
  "rootNamespace" (.Values.global.configRootNamespace | default .Values.global.istioNamespace)
  "trustDomain" "cluster.local"
  "enablePrometheusMerge" true
-}}
{{- if and .Values.telemetry.enabled .Values.telemetry.v2.enabled .Values.telemetry.v2.prometheus.enabled -}}
{{- $_ := set $mesh "defaultProviders" (dict "metrics" (list "prometheus")) -}}
{{- end -}}
{{- toYaml (mustMergeOverwrite $mesh (deepCopy .Values.meshConfig)) -}}
{{- end -}}

{{- /* istiod.selector tells the pods of one revision. The default revision is also known by the label that Istio gives it. */ -}}
{{- define "istiod.selector" -}}
app: istiod
{{ if include "istiod.suffix" . -}}
istio.io/rev: {{ .Values.revision | quote }}
{{- else -}}
istio: pilot
{{- end -}}
{{- end -}}

{{- define "istiod.validator" -}}istio-validator{{ include "istiod.suffix" . }}-{{ .Release.Namespace }}{{- end -}}

{{- /* istiod.hosts are the names that the control plane's certificate has besides its Service's. */ -}}
{{- define "istiod.hosts" -}}
{{- $hosts := list -}}
{{- range .Values.revisionTags -}}{{- $hosts = append $hosts (printf "istiod-revision-tag-%s.%s.svc" . $.Release.Namespace) -}}{{- end -}}
{{- with .Values.global.remotePilotAddress -}}{{- $hosts = append $hosts . -}}{{- end -}}
{{- join "," $hosts -}}
{{- end -}}

{{- /* istiod.runs tells whether the control plane itself runs in this cluster. */ -}}
{{- define "istiod.runs" -}}{{ if and (include "istiod.local" .) (not .Values.istiodRemote.enabled) }}true{{ end }}{{- end -}}
