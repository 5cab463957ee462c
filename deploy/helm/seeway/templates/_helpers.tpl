{{- define "seeway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "seeway.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "seeway.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "seeway.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "seeway.selector" -}}
app.kubernetes.io/name: {{ include "seeway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "seeway.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "seeway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "seeway.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "seeway.fullname" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "seeway.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- /* A value in TOML. Numbers in values are floating-point, and seeway.toml has whole ones only. A JSON string is one of TOML. */ -}}
{{- define "seeway.value" -}}
{{- if kindIs "string" . }}{{ toJson . }}
{{- else if kindIs "bool" . }}{{ . }}
{{- else if kindIs "slice" . }}[{{ range $at, $value := . }}{{ if $at }}, {{ end }}{{ include "seeway.value" $value }}{{ end }}]
{{- else }}{{ int64 . }}
{{- end }}
{{- end }}

{{- define "seeway.table" -}}
{{- range $key, $value := . }}
{{ $key }} = {{ include "seeway.value" $value }}
{{- end }}
{{- end }}

{{- define "seeway.toml" -}}
{{- if not .Values.machines }}{{ fail "machines is empty: write at least one (README.md)" }}{{ end }}
{{- if not .Values.worlds }}{{ fail "worlds is empty: write at least one (README.md)" }}{{ end }}
{{- $tls := required "tls.secretName is missing: the name of a Secret with tls.crt, tls.key and ca.crt" .Values.tls.secretName }}
{{- $identity := required "identity.secretName is missing: the name of a Secret with the private key for the machines' SSH servers" .Values.identity.secretName }}
{{- $sections := deepCopy .Values.settings }}
{{- $listen := dict "grpc" "0.0.0.0:50051" "hardserver" (list) "admin" "0.0.0.0:9464" "management" "unix:/run/seeway/management" }}
{{- if .Values.hardserver.enabled }}{{ $_ := set $listen "hardserver" (list "tls:0.0.0.0:9443") }}{{ end }}
{{- $files := dict "certificate" "/etc/seeway/tls/tls.crt" "key" "/etc/seeway/tls/tls.key" "client_ca" "/etc/seeway/tls/ca.crt" "client_certificates" .Values.tls.clientCertificates }}
{{- $runtime := dict "drain_timeout" (printf "%ds" (int64 .Values.drainTimeoutSeconds)) }}
{{- range $name, $ours := dict "listen" $listen "tls" $files "runtime" $runtime }}
{{- $_ := set $sections $name (mergeOverwrite (default (dict) (get $sections $name)) $ours) }}
{{- end }}
# Made by the chart. docs/configuration.md explains each key.
{{- range $name, $table := $sections }}

[{{ $name }}]
{{- include "seeway.table" $table }}
{{- end }}
{{- range .Values.machines }}
{{- $machine := deepCopy . }}
{{- if not $machine.identity }}{{ $_ := set $machine "identity" (printf "credential:%s" $.Values.identity.key) }}{{ end }}
{{- if not (or $machine.host_key $machine.host_ca $machine.known_hosts) }}
{{- if not $.Values.knownHosts.configMapName }}{{ fail (printf "machine %s has no host_key: write it, or knownHosts.configMapName" $machine.name) }}{{ end }}
{{- $_ := set $machine "known_hosts" (printf "/etc/seeway/known_hosts/%s" $.Values.knownHosts.key) }}
{{- end }}

[[machine]]
{{- include "seeway.table" $machine }}
{{- end }}
{{- range .Values.worlds }}

[[world]]
{{- include "seeway.table" . }}
{{- end }}
{{- range .Values.permissions }}

[[permission]]
{{- include "seeway.table" . }}
{{- end }}
{{ end }}
