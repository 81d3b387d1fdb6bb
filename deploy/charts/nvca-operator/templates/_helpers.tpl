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

{{/* Capabilities of the cluster and switches of the agent, as JSON. */}}
{{- define "nvca.gates" -}}
{{ dig "selfManaged" "featureGateValues" (list "DynamicGPUDiscovery") .Values.AsMap | toJson }}
{{- end -}}

{{/* What is merged into the agent's configuration, as JSON: values that have a name of their own, and mergeConfig, which wins. */}}
{{- define "nvca.merge" -}}
{{- $agent := dig "agent" (dict) .Values.AsMap -}}
{{- $workload := dict -}}
{{- with dig "workerDegradationPeriod" "" $agent }}{{ $_ := set $workload "workerDegradationTimeout" . }}{{ end -}}
{{- with dig "functionEnvOverrides" (dict) $agent }}{{ $_ := set $workload "functionEnvOverrides" . }}{{ end -}}
{{- with dig "taskEnvOverrides" (dict) $agent }}{{ $_ := set $workload "taskEnvOverrides" . }}{{ end -}}
{{- with dig "workload" "tolerations" (list) $agent }}{{ $_ := set $workload "tolerations" . }}{{ end -}}
{{- $named := ternary (dict) (dict "workload" $workload) (empty $workload) -}}
{{- mergeOverwrite $named (dig "agentConfig" "mergeConfig" "" .Values.AsMap | fromYaml) | toJson -}}
{{- end -}}

{{/* Where a cluster may be: the control plane's list. It takes them in any case. */}}
{{- define "nvca.regions" -}}
us-east-1 us-east-2 us-west-1 us-west-2 eu-east-1 eu-central-1 eu-west-1 eu-south-1 eu-north-1 eu-zurich-1 ap-east-1
ap-northeast-1 ap-south-1 ap-southeast-1 ap-hyderabad-1 me-south-1 me-central-1 il-central-1 ca-central-1 us-ashburn-1
us-sanjose-1 eastus eastus2 westus westus2 westus3 southcentralus westeurope northeurope southeastasia uksouth japaneast
australiaeast centralindia us-east1 us-west1 us-central1 us-east4 europe-west1 europe-west4 europe-central2
europe-north1 asia-east1 asia-south1 asia-southeast1 asia-northeast1
{{- end -}}

{{/* How long the clean-up may take: five waits of drainTimeout at most, two of them the operator's. */}}
{{- define "nvca.cleanupSeconds" -}}
{{- $drain := dig "drainTimeout" "25s" .Values.AsMap -}}
{{- $number := regexFind "^[0-9]+" $drain | atoi -}}
{{- $seconds := get (dict "ms" (div (add $number 999) 1000) "s" $number "m" (mul $number 60) "h" (mul $number 3600)) (regexFind "[a-z]+$" $drain) -}}
{{- max (dig "cleanup" "timeoutSeconds" 300 .Values.AsMap) (add (mul 5 $seconds) 60) -}}
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
{{- fail "vault.enabled is false: name a Secret with the key secrets.json in vault.existingSecret, one here and one in nvca-system" -}}
{{- end -}}
{{- if hasKey (dig "agentConfig" "mergeConfig" "" $v | fromYaml) "Error" -}}
{{- fail "agentConfig.mergeConfig is no mapping in YAML" -}}
{{- end -}}
{{- $region := dig "selfManaged" "region" "" $v | default "us-west-1" -}}
{{- $regions := include "nvca.regions" . | replace "\n" " " -}}
{{- if not (has (lower $region) (splitList " " $regions)) -}}
{{- fail (printf "selfManaged.region `%s` is unknown: the control plane takes one of %s" $region $regions) -}}
{{- end -}}
{{- $gates := include "nvca.gates" . | fromJsonArray -}}
{{- $gpus := dig "selfManaged" "gpuManualInstanceConfigB64" "" $v -}}
{{- if and (has "DynamicGPUDiscovery" $gates) $gpus -}}
{{- fail "selfManaged.featureGateValues has DynamicGPUDiscovery, so selfManaged.gpuManualInstanceConfigB64 must be empty: remove the one or the other" -}}
{{- end -}}
{{- if and (not (has "DynamicGPUDiscovery" $gates)) (not $gpus) -}}
{{- fail "selfManaged.featureGateValues lacks DynamicGPUDiscovery, so selfManaged.gpuManualInstanceConfigB64 must list the GPUs: add the one or the other" -}}
{{- end -}}
{{- end -}}
