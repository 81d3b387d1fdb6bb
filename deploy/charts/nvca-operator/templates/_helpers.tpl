{{/* Names, labels, and what values must be together. Names are fixed: OpenBao's roles and NVCF's documentation know them.
     Every value is read nil-safely: `helm upgrade --reuse-values` brings the values of an older chart, without the newer keys. */}}

{{- define "nvca.name" -}}nvca-operator{{- end -}}

{{- define "nvca.serviceAccount" -}}
{{ dig "serviceAccount" "name" "" .Values.AsMap | default "nvca-operator" }}
{{- end -}}

{{- define "nvca.selector" -}}
app.kubernetes.io/name: nvca-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "nvca.labels" -}}
{{ include "nvca.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "nvca.image" -}}
{{ dig "image" "repository" "" .Values.AsMap }}:{{ dig "image" "tag" "" .Values.AsMap | default .Chart.AppVersion }}
{{- end -}}

{{- define "nvca.restricted" -}}
allowPrivilegeEscalation: false
capabilities: { drop: [ALL] }
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 1000
{{- end -}}

{{/* What a schema cannot say. */}}
{{- define "nvca.check" -}}
{{- $v := .Values.AsMap -}}
{{- if not (dig "image" "repository" "" $v) -}}
{{- fail "image.repository is empty: name the operator's image" -}}
{{- end -}}
{{- if not (dig "nvcaImage" "repositoryOverride" "" $v) -}}
{{- fail "nvcaImage.repositoryOverride is empty: name the agent's image, without a tag" -}}
{{- end -}}
{{- if not (dig "selfManaged" "nvcaVersion" "" $v) -}}
{{- fail "selfManaged.nvcaVersion is empty: name the agent's version, the tag of its image" -}}
{{- end -}}
{{- if and (not (dig "vault" "enabled" true $v)) (not (dig "vault" "existingSecret" "" $v)) -}}
{{- fail "vault.enabled is false: name a Secret with the key secrets.json in vault.existingSecret" -}}
{{- end -}}
{{- $gates := dig "selfManaged" "featureGateValues" (list) $v -}}
{{- $gpus := dig "selfManaged" "gpuManualInstanceConfigB64" "" $v -}}
{{- if and (has "DynamicGPUDiscovery" $gates) $gpus -}}
{{- fail "selfManaged.featureGateValues has DynamicGPUDiscovery, so selfManaged.gpuManualInstanceConfigB64 must be empty: remove the one or the other" -}}
{{- end -}}
{{- if and (not (has "DynamicGPUDiscovery" $gates)) (not $gpus) -}}
{{- fail "selfManaged.featureGateValues lacks DynamicGPUDiscovery, so selfManaged.gpuManualInstanceConfigB64 must list the GPUs: add the one or the other" -}}
{{- end -}}
{{- end -}}
