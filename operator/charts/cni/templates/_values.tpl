{{- /*
isthmus.values makes .Values of what the user set over the profile's values over the defaults, once per chart. The arguments are
the chart's context and the key under which Istio nests the chart's values ("pilot", "cni" …): they may be set flat or nested; flat
counts. This file is the same in every chart (a test compares them).
*/ -}}
{{- define "isthmus.values" -}}
{{- $root := index . 0 -}}
{{- $nest := index . 1 -}}
{{- if not (hasKey $root "isthmusValues") -}}
{{- $user := deepCopy $root.Values -}}
{{- if $nest -}}
{{- $user = mustMergeOverwrite (deepCopy (get $user $nest | default dict)) (omit $user $nest) -}}
{{- end -}}
{{- $global := $user.global | default dict -}}
{{- $profile := $user.profile | default $global.profile | default "default" -}}
{{- $profiles := list "ambient" "default" "demo" "empty" "minimal" "openshift" "openshift-ambient" "preview" "remote" "stable" -}}
{{- if not (has $profile $profiles) -}}
{{- fail (printf "profile: %q is none of %s" $profile (join ", " $profiles)) -}}
{{- end -}}
{{- $platform := $user.platform | default $global.platform | default "" -}}
{{- $platforms := list "" "aks" "eks" "gcp" "gke" "k3d" "k3s" "microk8s" "minikube" "openshift" -}}
{{- if not (has $platform $platforms) -}}
{{- fail (printf "global.platform: %q is none of %s" $platform (join ", " (rest $platforms))) -}}
{{- end -}}
{{- $compatibility := $user.compatibilityVersion | default $global.compatibilityVersion | default "" | toString -}}
{{- $versions := list "" "1.25" "1.26" "1.27" "1.28" "1.29" "1.30" "1.31" -}}
{{- if not (has $compatibility $versions) -}}
{{- fail (printf "compatibilityVersion: %q is none of %s" $compatibility (join ", " (rest $versions))) -}}
{{- end -}}
{{- $values := $root.Files.Get "files/defaults.yaml" | fromYaml -}}
{{- range $name := list (printf "profile-%s" $profile) (printf "platform-%s" $platform) (printf "compatibility-version-%s" $compatibility) -}}
{{- with $root.Files.Get (printf "files/%s.yaml" $name) -}}
{{- $values = mustMergeOverwrite $values (fromYaml .) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $root "Values" (mustMergeOverwrite $values $user) -}}
{{- $_ := set $root "isthmusValues" true -}}
{{- end -}}
{{- end -}}

{{- /* isthmus.image is the reference of an image. Arguments: the chart's context, the image's name or whole reference. */ -}}
{{- define "isthmus.image" -}}
{{- $v := (index . 0).Values -}}
{{- $image := index . 1 -}}
{{- if contains "/" $image -}}
{{- $image -}}
{{- else -}}
{{- $variant := $v.variant | default $v.global.variant -}}
{{- printf "%s/%s:%s" ($v.hub | default $v.global.hub) $image ($v.tag | default $v.global.tag | toString) -}}
{{- if $variant -}}-{{ $variant }}{{- end -}}
{{- end -}}
{{- end -}}

{{- /* isthmus.roots is the volume source of the root certificates. Arguments: the chart's context. */ -}}
{{- define "isthmus.roots" -}}
{{- $v := (index . 0).Values -}}
{{- if eq (get ($v.env | default dict) "ENABLE_CLUSTER_TRUST_BUNDLE_API" | toString) "true" -}}
projected: {sources: [{clusterTrustBundle: {name: "istio.io:istiod-ca:root-cert", path: root-cert.pem}}]}
{{- else -}}
configMap: {name: {{ $v.global.trustBundleName | default "istio-ca-root-cert" }}}
{{- end -}}
{{- end -}}

{{- /* isthmus.labels are the labels of every object. Arguments: the chart's context, the component's name. */ -}}
{{- define "isthmus.labels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/part-of: isthmus
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Values.tag | default $root.Values.global.tag | toString | trunc 63 | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
operator.istio.io/component: {{ index . 1 }}
{{- end -}}
