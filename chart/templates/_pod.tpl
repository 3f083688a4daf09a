{{/* What a pod of the release has, whether it is a pooler or tries one out. */}}
{{- define "pgweir.podSpec" -}}
serviceAccountName: {{ include "pgweir.serviceAccountName" . }}
automountServiceAccountToken: {{ eq "true" (include "pgweir.asksKubernetes" .) }}
{{- /* A variable for each service of the namespace is of no use to pgweir. */}}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  {{- include "pgweir.volumes" . | nindent 2 }}
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* What a container with pgweir in it has. */}}
{{- define "pgweir.container" -}}
image: {{ include "pgweir.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  {{- range include "pgweir.volumes" . | fromYamlArray }}
  - name: {{ .name }}
    {{- /* Whole directories: what is mounted with subPath never changes. */}}
    mountPath: /etc/pgweir/{{ regexReplaceAll "^certificate-" (trimPrefix "pgweir-" .name) "certificates/" }}
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The configuration and the secrets that it names. Of a secret with a CA the key of that CA is not for us. */}}
{{- define "pgweir.volumes" -}}
- name: pgweir-config
  configMap:
    name: {{ include "pgweir.configMapName" . }}
{{- with include "pgweir.tlsSecret" . }}
- name: pgweir-tls
  {{- include "pgweir.keyPair" . | nindent 2 }}
{{- end }}
{{- if .Values.tls.enabled }}
{{- with .Values.tls.clientCA }}
{{- if .secret }}
- name: pgweir-client-ca
  {{- include "pgweir.ca" . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.auth.usersSecret }}
- name: pgweir-users
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - key: users.txt
        path: users.txt
{{- end }}
{{- with include "pgweir.authSecret" . }}
- name: pgweir-auth
  {{- include "pgweir.keyPair" . | nindent 2 }}
{{- end }}
{{- with include "pgweir.serverCASecret" . }}
- name: pgweir-server-ca
  {{- include "pgweir.ca" (dict "secret" . "key" $.Values.serverTLS.ca.key) | nindent 2 }}
{{- end }}
{{- range .Values.userCertificates }}
- name: pgweir-certificate-{{ include "pgweir.userSlug" .user }}
  {{- include "pgweir.keyPair" (include "pgweir.userSecret" (dict "root" $ "user" .)) | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "pgweir.keyPair" -}}
secret:
  secretName: {{ . }}
  defaultMode: 0440
  items:
    - key: tls.crt
      path: tls.crt
    - key: tls.key
      path: tls.key
{{- end -}}

{{- define "pgweir.ca" -}}
secret:
  secretName: {{ .secret }}
  defaultMode: 0440
  items:
    - key: {{ .key }}
      path: ca.crt
{{- end -}}

{{/* On which nodes the poolers are. */}}
{{- define "pgweir.placement" -}}
{{- $spread := list -}}
{{- if .Values.topologySpread.enabled -}}
{{- range .Values.topologySpread.topologyKeys -}}
{{- $selector := dict "matchLabels" (include "pgweir.selectorLabels" $ | fromYaml) -}}
{{- $spread = append $spread (dict "maxSkew" 1 "topologyKey" . "whenUnsatisfiable" $.Values.topologySpread.whenUnsatisfiable "labelSelector" $selector) -}}
{{- end -}}
{{- end -}}
{{- with concat $spread .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $affinity := deepCopy .Values.affinity -}}
{{- if .Values.podAntiAffinity.enabled -}}
{{- $selector := dict "matchLabels" (include "pgweir.selectorLabels" . | fromYaml) -}}
{{- $term := dict "topologyKey" .Values.podAntiAffinity.topologyKey "labelSelector" $selector -}}
{{- $own := dict -}}
{{- if eq .Values.podAntiAffinity.type "hard" -}}
{{- $_ := set $own "requiredDuringSchedulingIgnoredDuringExecution" (list $term) -}}
{{- else -}}
{{- $_ := set $own "preferredDuringSchedulingIgnoredDuringExecution" (list (dict "weight" 100 "podAffinityTerm" $term)) -}}
{{- end -}}
{{- range $kind, $terms := $affinity.podAntiAffinity -}}
{{- $_ := set $own $kind (concat (get $own $kind | default list) $terms) -}}
{{- end -}}
{{- $_ := set $affinity "podAntiAffinity" $own -}}
{{- end -}}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
