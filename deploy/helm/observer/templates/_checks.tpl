{{/*
What the schema cannot see: values that would be taken and then do nothing, or keep the pod from starting. Most are paths that are
not in the pod.
*/}}

{{/* Arguments: what it is, the path, where it may be. */}}
{{- define "observer.inside" -}}
{{- $path := index . 1 -}}
{{- $found := false -}}
{{- range index . 2 -}}
{{- if or (eq $path .) (hasPrefix (printf "%s/" (trimSuffix "/" .)) $path) -}}{{- $found = true -}}{{- end -}}
{{- end -}}
{{- if not $found -}}
{{- fail (printf "%s is %s, which is not in the pod: expected below %s, or below a mountPath of extraVolumeMounts" (index . 0) $path (join ", " (index . 2))) -}}
{{- end -}}
{{- end }}

{{- define "observer.checks" -}}
{{- $config := .Values.config -}}
{{- $writable := list "/var/lib/observer" -}}
{{- $local := list "/run/observer" -}}
{{- $readable := list "/etc/observer" "/etc/ssl" "/host/run" -}}
{{- if .Values.secret.name -}}{{- $readable = append $readable "/etc/observer-secret" -}}{{- end -}}
{{- range .Values.extraVolumeMounts -}}
{{- $writable = append $writable .mountPath -}}
{{- $local = append $local .mountPath -}}
{{- $readable = append $readable .mountPath -}}
{{- end -}}
{{- if regexMatch "^(127\\.|\\[::1\\])" $config.http.listen -}}
{{- fail (printf "config.http.listen is %s, where the kubelet's probes cannot come: expected 0.0.0.0:PORT or [::]:PORT" $config.http.listen) -}}
{{- end -}}
{{- with ($config.store).path -}}{{- include "observer.inside" (list "config.store.path" . $writable) -}}{{- end -}}
{{- with ($config.socket).path -}}{{- include "observer.inside" (list "config.socket.path" . $local) -}}{{- end -}}
{{- range ($config.host).cri_sockets -}}
{{- include "observer.inside" (list "an entry of config.host.cri_sockets" (trimPrefix "unix://" .) $readable) -}}
{{- end -}}
{{- $names := list -}}
{{- $prefixes := list -}}
{{- range $config.sinks -}}
{{- $name := .name -}}
{{- if has $name $names -}}{{- fail (printf "config.sinks: two are called %s, expected different names" $name) -}}{{- end -}}
{{- $names = append $names $name -}}
{{- $prefixes = append $prefixes (printf "OBSERVER_SINK_%s_" ($name | upper | replace "-" "_")) -}}
{{- if eq .type "file" -}}{{- include "observer.inside" (list (printf "config.sinks: the file of %s" $name) .path $writable) -}}{{- end -}}
{{- if and (eq .type "syslog") (hasPrefix "unix://" .address) -}}
{{- if eq .address "unix:///dev/log" -}}
{{- fail (printf "config.sinks: the socket of %s, /dev/log, is not in the pod: the node's journal takes syslog at unix:///host/run/systemd/journal/dev-log" $name) -}}
{{- end -}}
{{- include "observer.inside" (list (printf "config.sinks: the socket of %s" $name) (trimPrefix "unix://" .address) $readable) -}}
{{- end -}}
{{- range $header, $path := .header_files -}}
{{- include "observer.inside" (list (printf "config.sinks: the file with the header %s of %s" $header $name) $path $readable) -}}
{{- end -}}
{{- range $key, $path := .tls -}}
{{- if $path -}}{{- include "observer.inside" (list (printf "config.sinks: tls.%s of %s" $key $name) $path $readable) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- range $variable, $path := .Values.secret.env -}}
{{- $found := false -}}
{{- range $prefixes -}}{{- if hasPrefix . $variable -}}{{- $found = true -}}{{- end -}}{{- end -}}
{{- if not $found -}}{{- fail (printf "secret.env: %s fits no sink of config.sinks" $variable) -}}{{- end -}}
{{- include "observer.inside" (list (printf "secret.env: %s" $variable) $path $readable) -}}
{{- end -}}
{{- if ($config.audit).apparmor -}}
{{- if not (and .Values.hostNetwork (has "AUDIT_READ" .Values.capabilities)) -}}
{{- fail "config.audit.apparmor reads the kernel's audit log, which takes hostNetwork: true and AUDIT_READ in capabilities (docs/deploy.md)" -}}
{{- end -}}
{{- end -}}
{{- end }}
