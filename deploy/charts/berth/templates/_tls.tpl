{{/*
Certificates made by Helm. Two authorities, so that a key stolen from a node opens no door: `node` signs the daemons' serving
certificate, `client` signs who may ask daemons and schedulers. Their keys are in Secrets that no pod mounts.
*/}}

{{- define "berth.nodeAuthority" -}}{{ include "berth.fullname" . }}-node-authority{{- end -}}
{{- define "berth.clientAuthority" -}}{{ include "berth.fullname" . }}-client-authority{{- end -}}

{{/* Names of the Secrets that pods mount. */}}
{{- define "berth.daemonTls" -}}{{ .Values.tls.existing.daemon | default (printf "%s-tls" (include "berth.daemon" .)) }}{{- end -}}
{{- define "berth.schedulerTls" -}}{{ .Values.tls.existing.scheduler | default (printf "%s-tls" (include "berth.scheduler" .)) }}{{- end -}}
{{- define "berth.kubeSchedulerTls" -}}{{ .Values.tls.existing.kubeScheduler | default (printf "%s-tls" (include "berth.kubeScheduler" .)) }}{{- end -}}
{{- define "berth.nodeCaKey" -}}{{ ternary .Values.tls.existing.schedulerNodeCaKey "node-ca.crt" (eq .Values.tls.source "existing") }}{{- end -}}

{{/* Addresses of the nodes that get a daemon, as far as they are there; sorted, as a JSON list. */}}
{{- define "berth.nodeAddresses" -}}
{{- $addresses := concat (list "127.0.0.1") .Values.tls.nodeAddresses -}}
{{- $selector := .Values.daemon.nodeSelector -}}
{{- range $node := (lookup "v1" "Node" "" "").items -}}
{{- $ours := true -}}
{{- range $key, $value := $selector -}}
{{- if ne (get ($node.metadata.labels | default dict) $key) $value -}}{{- $ours = false -}}{{- end -}}
{{- end -}}
{{- if $ours -}}
{{- range $node.status.addresses -}}
{{- if eq .type "InternalIP" -}}{{- $addresses = append $addresses .address -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $addresses | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/*
A Secret with a certificate: the one that is there, where it was made for the same names by the same authority and is not old.
dict "root" $ "name" NAME "component" C "ca" CA "cn" CN "ips" LIST "dns" LIST "trust" DICT
*/}}
{{- define "berth.certificate" -}}
{{- $renew := int64 (mul .root.Values.tls.renewAfterDays 86400) -}}
{{- $now := now | unixEpoch | int64 -}}
{{- $for := list .ca.Cert .cn .ips .dns | toJson | sha256sum -}}
{{- $made := $now -}}
{{- $kept := lookup "v1" "Secret" .root.Release.Namespace .name -}}
{{- $notes := dict -}}
{{- if $kept -}}{{- $notes = $kept.metadata.annotations | default dict -}}{{- end -}}
{{- $data := dict -}}
{{- $keptMade := get $notes "gpu.berth.dev/certificate-made" | default "0" | int64 -}}
{{- if and $kept (eq (get $notes "gpu.berth.dev/certificate-for") $for) (lt (int64 (sub $now $keptMade)) $renew) (get $kept.data "tls.crt") (get $kept.data "tls.key") -}}
{{- $made = $keptMade -}}
{{- $data = dict "tls.crt" (get $kept.data "tls.crt") "tls.key" (get $kept.data "tls.key") -}}
{{- else -}}
{{- $leaf := genSignedCert .cn .ips .dns (int (mul 2 .root.Values.tls.renewAfterDays)) .ca -}}
{{- $data = dict "tls.crt" (b64enc $leaf.Cert) "tls.key" (b64enc $leaf.Key) -}}
{{- end -}}
apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "berth.labels" . | nindent 4 }}
  annotations:
    gpu.berth.dev/certificate-for: {{ $for }}
    gpu.berth.dev/certificate-made: {{ $made | toString | quote }}
data:
  {{- range $key, $value := merge $data .trust }}
  {{ $key }}: {{ $value }}
  {{- end }}
{{- end -}}

{{/* The Secret of an authority. dict "root" $ "name" NAME "ca" CA */}}
{{- define "berth.authoritySecret" -}}
apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "berth.labels" (dict "root" .root "component" "authority") | nindent 4 }}
data:
  tls.crt: {{ b64enc .ca.Cert }}
  tls.key: {{ b64enc .ca.Key }}
{{- end -}}
