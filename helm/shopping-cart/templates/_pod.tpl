{{/*
The metadata of a pod. Call with a dict: root, component, values (of which podAnnotations and podLabels count), and maybe
annotations of the chart's own and `over`: values whose annotations and labels go before. With `lasting` for a pod that an
upgrade must not replace for the sake of a version in its labels.
*/}}
{{- define "shopping-cart.pod.metadata" -}}
{{- $over := default (dict "podAnnotations" dict "podLabels" dict) .over }}
{{- with merge (dict) $over.podAnnotations .values.podAnnotations (default dict .annotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
labels:
  {{- $labels := merge (dict) $over.podLabels .values.podLabels }}
  {{- include "shopping-cart.labels" (dict "root" .root "component" .component "labels" $labels "lasting" .lasting) | nindent 2 }}
{{- end }}

{{/* What all pods have in common. Call with a dict: root, component (whose account it is) and values. */}}
{{- define "shopping-cart.pod" -}}
serviceAccountName: {{ include "shopping-cart.account" (list .root .component .values) }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with include "shopping-cart.security" (dict "root" .root "context" .values.podSecurityContext) }}
securityContext:
  {{- . | nindent 2 }}
{{- end }}
{{- with include "shopping-cart.pullsecrets" .root }}
imagePullSecrets:
  {{- . | nindent 2 }}
{{- end }}
{{- range $key := list "priorityClassName" "runtimeClassName" "dnsPolicy" "dnsConfig" "hostAliases" "nodeSelector" "tolerations" "affinity" }}
{{- with get $.values $key }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
{{- end }}

{{- define "shopping-cart.pod.spread" }}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else }}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "shopping-cart.selector" (list $.root $.component) | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}
{{- end }}

{{/*
A security context as it is set, but for the user's and the group's numbers where the cluster chooses them. Call with a
dict: root and context.
*/}}
{{- define "shopping-cart.security" -}}
{{- $adapt := .root.Values.adaptSecurityContext }}
{{- $context := .context }}
{{- if or (eq $adapt "force") (and (eq $adapt "auto") (.root.Capabilities.APIVersions.Has "security.openshift.io/v1")) }}
{{- $context = omit $context "runAsUser" "runAsGroup" "fsGroup" }}
{{- end }}
{{- with $context }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* Resources and security of a container. Call with a dict: root and values. */}}
{{- define "shopping-cart.container" -}}
{{- with .values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "shopping-cart.security" (dict "root" .root "context" .values.containerSecurityContext) }}
securityContext:
  {{- . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
A container's environment, each name once: `values.extraEnv` goes before the chart's own. Call with a dict: own (variables, as YAML),
and values.
*/}}
{{- define "shopping-cart.env" -}}
{{- $names := list }}
{{- $env := list }}
{{- range reverse (concat (.own | fromYamlArray) .values.extraEnv) }}
{{- if not (has .name $names) }}
{{- $names = append $names .name }}
{{- $env = prepend $env . }}
{{- end }}
{{- end }}
env:
  {{- toYaml $env | nindent 2 }}
{{- with .values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Variables of every process of the shop's own. */}}
{{- define "shopping-cart.env.common" -}}
- {name: LOG_LEVEL, value: {{ .Values.log.level }}}
- {name: LOG_FORMAT, value: {{ .Values.log.format }}}
{{- with .Values.telemetry.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
- {name: OTEL_EXPORTER_OTLP_PROTOCOL, value: {{ $.Values.telemetry.protocol }}}
{{- end }}
{{- end }}

{{/* Volumes, mounts and the like: a key with a list, where there is something in it. Call with a dict of keys and lists. */}}
{{- define "shopping-cart.lists" -}}
{{- range $key, $list := . }}
{{- with $list }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
{{- end }}
