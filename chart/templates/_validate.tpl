{{/* What the schema cannot say: values that do not go together. Each message says what to do. */}}
{{- define "pgweir.validate" -}}
{{- $isOwn := or .Values.rawConfig .Values.existingConfigMap -}}
{{- if and .Values.rawConfig .Values.existingConfigMap -}}
{{- fail "rawConfig and existingConfigMap exclude each other: leave one empty" -}}
{{- end -}}
{{- if and .Values.tls.enabled (not .Values.tls.secret) (not .Values.certManager.enabled) -}}
{{- fail "tls.enabled needs a certificate: set tls.secret, or certManager.enabled" -}}
{{- end -}}
{{- if and (not $isOwn) (not .Values.auth.user) (not .Values.auth.usersSecret) (not .Values.auth.hba) (not (dig "auth" "auth_type" "" .Values.config)) -}}
{{- fail "nobody could log in: set auth.user or auth.usersSecret" -}}
{{- end -}}
{{- if and (not $isOwn) .Values.auth.user (not .Values.auth.usersSecret) (not (include "pgweir.authSecret" .)) -}}
{{- fail "auth.user has neither certificate nor password: set auth.secret, certManager.enabled, cluster.name or auth.usersSecret" -}}
{{- end -}}
{{- if and (not $isOwn) (has .Values.serverTLS.mode (list "verify-ca" "verify-full")) (not (include "pgweir.serverCASecret" .)) -}}
{{- fail (printf "serverTLS.mode %s needs a CA: set serverTLS.ca.secret" .Values.serverTLS.mode) -}}
{{- end -}}
{{- range .Values.userCertificates -}}
{{- if not (or .secret $.Values.certManager.enabled) -}}
{{- fail (printf "userCertificates: %s needs a certificate: set its secret, or certManager.enabled" .user) -}}
{{- end -}}
{{- end -}}
{{- if .Values.shimPooler.enabled -}}
{{- if not .Values.cluster.name -}}
{{- fail "shimPooler.enabled needs cluster.name" -}}
{{- end -}}
{{- if and .Values.cluster.namespace (ne .Values.cluster.namespace .Release.Namespace) -}}
{{- fail "shimPooler.enabled: the operator makes the certificate in the cluster's namespace, and pods can only mount those of their own; install the release there" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled -}}
{{- fail "podMonitor.enabled and serviceMonitor.enabled would have every pod scraped twice: turn one off" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not .Values.autoscaling.metrics) (not .Values.autoscaling.targetCPU) -}}
{{- fail "autoscaling.enabled needs a metric: set autoscaling.targetCPU or autoscaling.metrics" -}}
{{- end -}}
{{- $names := list (include "pgweir.serviceName" .) -}}
{{- if .Values.loadBalancer.enabled -}}
{{- if has (include "pgweir.loadBalancerName" .) $names -}}
{{- fail (printf "loadBalancer.name and service.name are both %s: a Service has one of them" (first $names)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
