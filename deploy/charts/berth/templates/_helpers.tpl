{{/* Names, labels, images, and what values must not be together. */}}

{{- define "berth.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $whole := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $whole | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "berth.daemon" -}}{{ include "berth.fullname" . }}-daemon{{- end -}}
{{- define "berth.scheduler" -}}{{ include "berth.fullname" . }}-scheduler{{- end -}}
{{- define "berth.kubeScheduler" -}}{{ include "berth.fullname" . }}-kube-scheduler{{- end -}}
{{- define "berth.webhookService" -}}{{ include "berth.fullname" . }}-webhook{{- end -}}

{{/* dict "root" $ "component" NAME */}}
{{- define "berth.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "berth.labels" -}}
{{ include "berth.selector" . }}
app.kubernetes.io/part-of: berth
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{/* dict "root" $ "image" IMAGE */}}
{{- define "berth.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}

{{/* Distributions add to the version (v1.34.1+k3s1); images of kube-scheduler do not. */}}
{{- define "berth.kubeSchedulerImage" -}}
{{- $server := semver .Capabilities.KubeVersion.Version -}}
{{- $tag := printf "v%d.%d.%d" $server.Major $server.Minor $server.Patch -}}
{{ .Values.kubeScheduler.image.repository }}:{{ .Values.kubeScheduler.image.tag | default $tag }}
{{- end -}}

{{- define "berth.restrictsDaemons" -}}
{{- if and .Values.daemon.restrictToOwnNode (semverCompare ">=1.32.0-0" .Capabilities.KubeVersion.Version) -}}yes{{- end -}}
{{- end -}}

{{/* What a schema cannot say. */}}
{{- define "berth.check" -}}
{{- with .Values -}}
{{- if and (eq .tls.source "existing") .scheduler.enabled (not .tls.existing.scheduler) -}}
{{- fail "tls.source is `existing`: name the scheduler's Secret in tls.existing.scheduler" -}}
{{- end -}}
{{- if and (eq .tls.source "existing") (not .tls.existing.daemon) (not .tls.daemonHostPath) -}}
{{- fail "tls.source is `existing`: name the daemons' Secret in tls.existing.daemon, or a directory on each node in tls.daemonHostPath" -}}
{{- end -}}
{{- if and (eq .tls.source "existing") .kubeScheduler.enabled (not .tls.existing.kubeScheduler) -}}
{{- fail "tls.source is `existing`: name kube-scheduler's Secret in tls.existing.kubeScheduler" -}}
{{- end -}}
{{- if and (eq .tls.source "generated") (or .tls.existing.daemon .tls.existing.scheduler .tls.existing.kubeScheduler .tls.daemonHostPath) -}}
{{- fail "tls.existing and tls.daemonHostPath are for tls.source `existing`: set that too, or leave them empty" -}}
{{- end -}}
{{- if and .kubeScheduler.enabled (not .scheduler.enabled) -}}
{{- fail "kubeScheduler.enabled needs scheduler.enabled: it would have nobody to ask" -}}
{{- end -}}
{{- if and .kai.mode (not .scheduler.enabled) -}}
{{- fail "kai.mode needs scheduler.enabled" -}}
{{- end -}}
{{- if and .kai.requireTop (ne .kai.mode "hint") -}}
{{- fail "kai.requireTop is for kai.mode `hint`" -}}
{{- end -}}
{{- if and .daemon.simulate .daemon.driver.libraryHostPath -}}
{{- fail "daemon.simulate invents GPUs: leave daemon.driver.libraryHostPath empty" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* deploy/scheduler/kube-scheduler-config.yaml, over the network. */}}
{{- define "berth.kubeSchedulerConfig" -}}
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection:
  leaderElect: true
  resourceNamespace: {{ .Release.Namespace }}
  resourceName: {{ include "berth.kubeScheduler" . }}
percentageOfNodesToScore: 100
profiles:
  - schedulerName: {{ .Values.kubeScheduler.schedulerName }}
extenders:
  - urlPrefix: https://{{ include "berth.scheduler" . }}.{{ .Release.Namespace }}.svc:9450
    filterVerb: filter?top=1
    prioritizeVerb: prioritize
    preemptVerb: preempt
    bindVerb: bind
    weight: 1000
    nodeCacheCapable: true
    httpTimeout: 5s
    ignorable: false
    enableHTTPS: true
    tlsConfig:
      caFile: /etc/berth/tls/ca.crt
      certFile: /etc/berth/tls/tls.crt
      keyFile: /etc/berth/tls/tls.key
    managedResources:
      {{- range .Values.kubeScheduler.managedResources }}
      - name: {{ . }}
      {{- end }}
{{- end -}}
