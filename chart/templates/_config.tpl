{{/*
pgweir's configuration as JSON: what the chart says by itself, and config on top of it.
*/}}
{{- define "pgweir.config" -}}
{{- $files := "/etc/pgweir" -}}
{{- $config := dict
  "listen" (dict "address" (printf "%s:%d" .Values.bindAddress (int .Values.containerPorts.postgres)))
  "http" (dict "address" (printf "%s:%d" .Values.bindAddress (int .Values.containerPorts.http)))
  "auth" dict
  "server_tls" (dict "mode" .Values.serverTLS.mode)
-}}
{{- if .Values.tls.enabled -}}
{{- $tls := dict "mode" .Values.tls.mode
  "cert_file" (printf "%s/tls/tls.crt" $files) "key_file" (printf "%s/tls/tls.key" $files) -}}
{{- if .Values.tls.clientCA.secret -}}
{{- $_ := set $tls "client_ca_file" (printf "%s/client-ca/ca.crt" $files) -}}
{{- end -}}
{{- $_ := set $config.listen "tls" $tls -}}
{{- end -}}
{{- if .Values.auth.user -}}
{{- $_ := set $config.auth "auth_user" .Values.auth.user -}}
{{- $_ := set $config.auth "auth_query" .Values.auth.query -}}
{{- $_ := set $config.auth "auth_database" .Values.auth.database -}}
{{- end -}}
{{- if .Values.auth.usersSecret -}}
{{- $_ := set $config.auth "users_file" (printf "%s/users/users.txt" $files) -}}
{{- end -}}
{{- if .Values.auth.hba -}}
{{- $_ := set $config.auth "hba_file" "pg_hba.conf" -}}
{{- end -}}
{{- if .Values.auth.ident -}}
{{- $_ := set $config.auth "ident_file" "pg_ident.conf" -}}
{{- end -}}
{{- if include "pgweir.serverCASecret" . -}}
{{- $_ := set $config.server_tls "ca_file" (printf "%s/server-ca/ca.crt" $files) -}}
{{- end -}}
{{- if .Values.serverTLS.serverName -}}
{{- $_ := set $config.server_tls "server_name" .Values.serverTLS.serverName -}}
{{- end -}}
{{- if include "pgweir.authSecret" . -}}
{{- $_ := set $config.server_tls "cert_file" (printf "%s/auth/tls.crt" $files) -}}
{{- $_ := set $config.server_tls "key_file" (printf "%s/auth/tls.key" $files) -}}
{{- end -}}
{{- if .Values.userCertificates -}}
{{- $users := dict -}}
{{- range .Values.userCertificates -}}
{{- $place := printf "%s/certificates/%s" $files (include "pgweir.userSlug" .user) -}}
{{- $tls := dict "cert_file" (printf "%s/tls.crt" $place) "key_file" (printf "%s/tls.key" $place) -}}
{{- $_ := set $users .user (dict "server_tls" $tls) -}}
{{- end -}}
{{- $_ := set $config "users" $users -}}
{{- end -}}
{{- if .Values.fleet.enabled -}}
{{- $_ := set $config "fleet" (dict "service" (printf "%s/%s" .Release.Namespace (include "pgweir.fleetName" .))) -}}
{{- end -}}
{{- include "pgweir.merge" (dict "into" $config "from" (deepCopy .Values.config)) -}}
{{- range $name, $database := $config.databases -}}
{{- if not (or (hasKey $database "hosts") (hasKey $database "cluster")) -}}
{{- include "pgweir.place" (dict "root" $ "name" $name "database" $database) -}}
{{- end -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}

{{/* Says of a database where its servers are: those of cluster.name. */}}
{{- define "pgweir.place" -}}
{{- $cluster := .root.Values.cluster -}}
{{- if not $cluster.name -}}
{{- fail (printf "set cluster.name, the name of the CloudNativePG Cluster, or hosts in config.databases.%s" (toJson .name)) -}}
{{- end -}}
{{- $role := .database.role | default $cluster.role -}}
{{- $isHere := or (not $cluster.namespace) (eq $cluster.namespace .root.Release.Namespace) -}}
{{- if $cluster.watch -}}
{{- $_ := set .database "cluster" (ternary $cluster.name (printf "%s/%s" $cluster.namespace $cluster.name) $isHere) -}}
{{- else -}}
{{- $host := printf "%s-%s" $cluster.name $role -}}
{{- $_ := set .database "hosts" (ternary $host (printf "%s.%s.svc" $host $cluster.namespace) $isHere) -}}
{{- end -}}
{{- $_ := set .database "role" $role -}}
{{- end -}}

{{/* Puts what is in "from" into "into", map by map; null takes away. (Helm's own merge passes over false, 0 and "".) */}}
{{- define "pgweir.merge" -}}
{{- range $key, $value := .from -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $.into $key -}}
{{- else if and (kindIs "map" $value) (kindIs "map" (get $.into $key)) -}}
{{- include "pgweir.merge" (dict "into" (get $.into $key) "from" $value) -}}
{{- else -}}
{{- $_ := set $.into $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The clusters that are watched, as JSON: names by namespace. */}}
{{- define "pgweir.clusters" -}}
{{- $clusters := dict -}}
{{- $config := dict -}}
{{- if not (or .Values.rawConfig .Values.existingConfigMap) -}}
{{- $config = include "pgweir.config" . | fromJson -}}
{{- else if and .Values.cluster.name .Values.cluster.watch -}}
{{- $config = dict "databases" (dict "*" (dict "cluster" (printf "%s/%s" (.Values.cluster.namespace | default .Release.Namespace) .Values.cluster.name))) -}}
{{- end -}}
{{- $default := ($config.kubernetes | default dict).namespace | default .Release.Namespace -}}
{{- range $config.databases -}}
{{- if .cluster -}}
{{- $parts := splitList "/" .cluster -}}
{{- $namespace := ternary $default (first $parts) (eq (len $parts) 1) -}}
{{- $_ := set $clusters $namespace (append (get $clusters $namespace | default list) (last $parts) | uniq | sortAlpha) -}}
{{- end -}}
{{- end -}}
{{- toJson $clusters -}}
{{- end -}}

{{/* The keys that take effect only after a restart, as JSON; src/config/diff.rs has the list. */}}
{{- define "pgweir.restartConfig" -}}
{{- if .Values.existingConfigMap -}}
{}
{{- else if .Values.rawConfig -}}
{{- toJson .Values.rawConfig -}}
{{- else -}}
{{- $config := include "pgweir.config" . | fromJson -}}
{{- $found := dict -}}
{{- range $path := list "listen.address" "listen.unix_socket_mode" "listen.unix_socket_group" "listen.listen_backlog" "http.address" "log.format" "process.workers" "process.scheduling" -}}
{{- $parts := splitList "." $path -}}
{{- $section := get $config (first $parts) | default dict -}}
{{- if hasKey $section (last $parts) -}}
{{- $_ := set $found $path (get $section (last $parts)) -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}
{{- end -}}

{{/*
A map as TOML; Helm's toToml writes whole numbers with a fraction. In: map, path (the name of its table, "" at the top).
*/}}
{{- define "pgweir.toml" -}}
{{- $scalars := list -}}
{{- range $key := keys .map | sortAlpha -}}
{{- $value := get $.map $key -}}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) -}}
{{- $scalars = append $scalars (printf "%s = %s" (include "pgweir.tomlKey" $key) (include "pgweir.tomlValue" $value)) -}}
{{- end -}}
{{- end -}}
{{- if and .path (or $scalars (not .map)) }}
[{{ .path }}]
{{ end -}}
{{- range $scalars }}{{ . }}
{{ end -}}
{{- range $key := keys .map | sortAlpha -}}
{{- $value := get $.map $key -}}
{{- if kindIs "map" $value -}}
{{- $name := include "pgweir.tomlKey" $key -}}
{{- include "pgweir.toml" (dict "map" $value "path" (ternary (printf "%s.%s" $.path $name) $name (ne $.path ""))) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pgweir.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ include "pgweir.tomlValue" . }}{{ end -}}
{{- end -}}

{{- define "pgweir.tomlValue" -}}
{{- if kindIs "string" . -}}
{{- /* JSON's escapes are TOML's, but that TOML wants DEL escaped. */ -}}
{{- . | toRawJson | replace "\x7f" "\\u007f" -}}
{{- else if kindIs "bool" . -}}
{{- . -}}
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . -}}
{{- $items = append $items (include "pgweir.tomlValue" .) -}}
{{- end -}}
[{{ join ", " $items }}]
{{- else if kindIs "float64" . -}}
{{- if eq . (floor .) }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end -}}
{{- else if kindIs "map" . -}}
{{- fail "config: no setting of pgweir is a list of maps" -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}
