{{/* What all objects' names begin with. */}}
{{- define "stayput.name" -}}
{{- contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "stayput.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stayput.labels" -}}
{{ include "stayput.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* include "stayput.image" (list . "agent") */}}
{{- define "stayput.image" -}}
{{- $root := index . 0 -}}
image: {{ printf "%s/stayput-%s:%s" $root.Values.image.registry (index . 1) ($root.Values.image.tag | default $root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
{{- end }}

{{/* The name under which pods reach the map server. */}}
{{- define "stayput.mapserver.host" -}}
{{ include "stayput.name" . }}-mapserver.{{ .Release.Namespace }}.svc
{{- end }}

{{/* What no container needs. */}}
{{- define "stayput.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where a pod may run, from mapserver's or agent's values. */}}
{{- define "stayput.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "stayput.mapserver.config" -}}
{{- $own := dict "metricsListen" "0.0.0.0:9342" }}
{{- if not .Values.mapserver.service.reflector }}{{ $_ := set $own "reflectorListen" list }}{{ end }}
{{- merge (deepCopy .Values.mapserver.config) $own | toPrettyJson }}
{{- end }}

{{/* A port below 1024 of the node takes a capability that Kubernetes gives to root only. */}}
{{- define "stayput.agent.config" -}}
{{- $listen := ternary "0.0.0.0:9341" "127.0.0.1:9341" .Values.podMonitor.enabled -}}
{{ merge (deepCopy .Values.agent.config) (dict "metricsListen" $listen "dns" (dict "enabled" false)) | toPrettyJson }}
{{- end }}
