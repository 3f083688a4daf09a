{{/* Names. */}}

{{- define "pgweir.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else if contains "pgweir" .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-pgweir" (.Release.Name | trunc 38 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "pgweir.serviceName" -}}
{{- .Values.service.name | default (include "pgweir.fullname" .) -}}
{{- end -}}

{{- define "pgweir.loadBalancerName" -}}
{{- .Values.loadBalancer.name | default (printf "%s-lb" (include "pgweir.serviceName" .)) -}}
{{- end -}}

{{- define "pgweir.fleetName" -}}
{{- include "pgweir.fullname" . }}-fleet
{{- end -}}

{{- define "pgweir.configMapName" -}}
{{- .Values.existingConfigMap | default (include "pgweir.fullname" .) -}}
{{- end -}}

{{- define "pgweir.serviceAccountName" -}}
{{- if and .Values.serviceAccount.create (include "pgweir.asksKubernetes" .) -}}
{{- .Values.serviceAccount.name | default (include "pgweir.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "pgweir.image" -}}
{{- $image := .Values.image -}}
{{- if $image.registry }}{{ $image.registry }}/{{ end }}{{ $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end -}}

{{/* Labels. Those of the CloudNativePG operator are left alone: its own selectors go by them. */}}

{{- define "pgweir.instanceLabels" -}}
app.kubernetes.io/name: pgweir
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pgweir.selectorLabels" -}}
{{ include "pgweir.instanceLabels" . }}
app.kubernetes.io/component: pooler
{{- end -}}

{{- define "pgweir.labels" -}}
{{ include "pgweir.instanceLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The metadata of an object. In: root, name; namespace, component, labels and annotations if there are any. */}}
{{- define "pgweir.metadata" -}}
name: {{ .name }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- $labels := include "pgweir.labels" .root | fromYaml }}
  {{- with .component }}
  {{- $_ := set $labels "app.kubernetes.io/component" . }}
  {{- end }}
  {{- range $name, $value := .labels }}
  {{- $_ := set $labels $name $value }}
  {{- end }}
  {{- toYaml $labels | nindent 2 }}
{{- $annotations := deepCopy .root.Values.commonAnnotations }}
{{- range $name, $value := .annotations }}
{{- $_ := set $annotations $name $value }}
{{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What there is: "true" or nothing. */}}

{{- define "pgweir.asksKubernetes" -}}
{{- if or .Values.fleet.enabled (include "pgweir.clusters" . | fromJson) -}}true{{- end -}}
{{- end -}}

{{- define "pgweir.hasManyPods" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) -}}true{{- end -}}
{{- end -}}

{{/* Secrets by what they are for; empty where there is none. */}}

{{- define "pgweir.tlsSecret" -}}
{{- if .Values.tls.enabled -}}
{{- .Values.tls.secret | default (printf "%s-tls" (include "pgweir.fullname" .)) -}}
{{- end -}}
{{- end -}}

{{- define "pgweir.authSecret" -}}
{{- $auth := .Values.auth -}}
{{- if and $auth.user (not (kindIs "invalid" $auth.secret)) (ne .Values.serverTLS.mode "disable") -}}
{{- if $auth.secret -}}
{{- $auth.secret -}}
{{- else if .Values.certManager.enabled -}}
{{- include "pgweir.fullname" . }}-auth
{{- else if .Values.cluster.name -}}
{{- .Values.cluster.name }}-pooler
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pgweir.serverCASecret" -}}
{{- if .Values.serverTLS.ca.secret -}}
{{- .Values.serverTLS.ca.secret -}}
{{- else if and (has .Values.serverTLS.mode (list "verify-ca" "verify-full")) .Values.cluster.name -}}
{{- .Values.cluster.name }}-ca
{{- end -}}
{{- end -}}

{{/* The part of a name that a user's objects have: a name of Kubernetes, and no other user's. */}}
{{- define "pgweir.userSlug" -}}
{{- $slug := . | lower | replace "_" "-" -}}
{{- if regexMatch "^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$" $slug | and (eq $slug .) -}}
{{- $slug -}}
{{- else -}}
{{- $plain := regexReplaceAll "[^a-z0-9-]" $slug "" | trunc 20 | trimAll "-" -}}
{{- printf "%s-%s" ($plain | default "user") (sha256sum . | trunc 8) -}}
{{- end -}}
{{- end -}}

{{/* In: root, user (one of userCertificates). */}}
{{- define "pgweir.userSecret" -}}
{{- .user.secret | default (printf "%s-user-%s" (include "pgweir.fullname" .root) (include "pgweir.userSlug" .user.user)) -}}
{{- end -}}

{{/* Seconds of a duration such as "1m", rounded up. */}}
{{- define "pgweir.seconds" -}}
{{- $text := toString . -}}
{{- if not (regexMatch "^[0-9]+(ms|s|m|h|d)$|^0+$" $text) -}}
{{- fail (printf "config.shutdown: %q is no duration such as \"60s\"" $text) -}}
{{- end -}}
{{- $number := regexFind "^[0-9]+" $text | int64 -}}
{{- $unit := regexFind "[a-z]+$" $text -}}
{{- if eq $unit "ms" -}}
{{- div (add $number 999) 1000 -}}
{{- else -}}
{{- mul $number (get (dict "s" 1 "m" 60 "h" 3600 "d" 86400) $unit | default 0) -}}
{{- end -}}
{{- end -}}

{{- define "pgweir.gracePeriod" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- $shutdown := (include "pgweir.config" . | fromJson).shutdown | default dict -}}
{{- $delay := include "pgweir.seconds" ($shutdown.drain_delay | default "5s") | int -}}
{{- $timeout := include "pgweir.seconds" ($shutdown.drain_timeout | default "60s") | int -}}
{{- add $delay $timeout 10 -}}
{{- else -}}
{{- .Values.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}
