{{- define "observer.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "observer.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "observer.labels" -}}
{{ include "observer.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: agent
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "observer.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "observer.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "observer.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{/* As an annotation has it, before Kubernetes 1.30. */}}
{{- define "observer.apparmor" -}}
{{- if eq .type "Localhost" -}}
localhost/{{ .localhostProfile }}
{{- else if eq .type "RuntimeDefault" -}}
runtime/default
{{- else -}}
unconfined
{{- end -}}
{{- end }}

{{/* The configuration as the agent gets it: the values, and where the optional mounts are. */}}
{{- define "observer.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $host := deepCopy (default dict $config.host) -}}
{{- if .Values.hostState.docker }}{{- $_ := set $host "docker" "/host/var/lib/docker" }}{{- end -}}
{{- if .Values.hostState.containersStorage }}{{- $_ := set $host "lib" "/host/var/lib" }}{{- end -}}
{{- $_ := set $config "host" $host -}}
{{- toYaml $config -}}
{{- end }}

{{/* The port that http.listen names. */}}
{{- define "observer.port" -}}
{{- regexFind "[0-9]+$" .Values.config.http.listen -}}
{{- end }}
