{{/*
A rule for components of this release. Call with a dict: root, way ("from" or "to"), components and port.
*/}}
{{- define "shopping-cart.rule" -}}
- {{ .way }}:
    {{- range .components }}
    - podSelector:
        matchLabels:
          {{- include "shopping-cart.selector" (list $.root .) | nindent 10 }}
    {{- end }}
  ports:
    - {port: {{ .port }}, protocol: TCP}
{{- end }}

{{- define "shopping-cart.rule.dns" -}}
{{- with .Values.networkPolicy.dns -}}
- ports:
    - {port: {{ .port }}, protocol: UDP}
    - {port: {{ .port }}, protocol: TCP}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Where traces go. Begins with a line break; nothing without telemetry. */}}
{{- define "shopping-cart.rule.telemetry" }}
{{- if .Values.telemetry.endpoint }}
- ports:
    - {port: {{ (include "shopping-cart.telemetry.address" . | fromYaml).port }}, protocol: TCP}
  {{- with .Values.networkPolicy.telemetry.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The way from a service to its database. Call with (list $ "product"). */}}
{{- define "shopping-cart.rule.database" -}}
{{- $root := index . 0 }}
{{- $database := (index $root.Values (index . 1)).database }}
{{- if include "shopping-cart.database.bundled" . -}}
{{ include "shopping-cart.rule" (dict "root" $root "way" "to" "components" (list (printf "%s-db" (index . 1))) "port" 5432) }}
{{- else -}}
- ports:
    - {port: {{ $database.port }}, protocol: TCP}
  {{- with $database.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The head of a component's policy, down to its selector. Call with (list $ "product"). */}}
{{- define "shopping-cart.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "shopping-cart.metadata" (dict "root" (index . 0) "component" (index . 1)) | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "shopping-cart.selector" . | nindent 6 }}
{{- end }}

{{/* The policy of a migration Job. Call with (list $ "product"). */}}
{{- define "shopping-cart.policy.migration" -}}
{{ include "shopping-cart.policy" (list (index . 0) (printf "%s-migrate" (index . 1))) }}
  policyTypes: [Egress]
  egress:
    {{- include "shopping-cart.rule.database" . | nindent 4 }}
    {{- include "shopping-cart.rule.dns" (index . 0) | nindent 4 }}
    {{- include "shopping-cart.rule.telemetry" (index . 0) | nindent 4 }}
{{- end }}

{{/* The policy of a bundled database. Call with (list $ "product"). */}}
{{- define "shopping-cart.policy.database" -}}
{{ include "shopping-cart.policy" (list (index . 0) (printf "%s-db" (index . 1))) }}
  policyTypes: [Ingress]
  ingress:
    {{- include "shopping-cart.rule" (dict "root" (index . 0) "way" "from" "components" (list (index . 1) (printf "%s-migrate" (index . 1))) "port" 5432) | nindent 4 }}
{{- end }}
