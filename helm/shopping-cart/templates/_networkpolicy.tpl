{{/*
An ingress rule: lets other components of the release reach a component's port. Arguments:
  root       the root context
  component  the component that the policy selects
  from       a list of components
*/}}
{{- define "shopping-cart.networkPolicy.ingressRule" -}}
- from:
    {{- range .from }}
    - podSelector:
        matchLabels:
          {{- include "shopping-cart.selectorLabels" (dict "root" $.root "component" .) | nindent 10 }}
    {{- end }}
  ports:
    - {port: {{ include "shopping-cart.port" . }}, protocol: TCP}
{{- end }}

{{/*
An egress rule: lets a component reach another component's port. Arguments:
  root  the root context
  to    a component
*/}}
{{- define "shopping-cart.networkPolicy.egressRule" -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "shopping-cart.selectorLabels" (dict "root" .root "component" .to) | nindent 10 }}
  ports:
    - {port: {{ include "shopping-cart.port" (dict "component" .to) }}, protocol: TCP}
{{- end }}

{{/*
The egress rule from a service to its database. Arguments:
  root       the root context
  component  "product" or "order"
*/}}
{{- define "shopping-cart.networkPolicy.databaseRule" -}}
{{- $database := (index .root.Values .component).database }}
{{- if include "shopping-cart.database.isBundled" . -}}
{{ include "shopping-cart.networkPolicy.egressRule" (dict "root" .root "to" (printf "%s-db" .component)) }}
{{- else -}}
- ports:
    - {port: {{ $database.port }}, protocol: TCP}
  {{- with $database.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/*
The egress rules from a service to its database, and to the pooler and the replicas if they are elsewhere. Arguments:
  root       the root context
  component  "product" or "order"
*/}}
{{- define "shopping-cart.networkPolicy.databaseRules" -}}
{{- $database := (index .root.Values .component).database }}
{{- include "shopping-cart.networkPolicy.databaseRule" . }}
{{- $allowed := list (toJson (list $database.port $database.to)) }}
{{- range $server := include "shopping-cart.database.others" $database | fromYaml }}
{{- $to := default $database.to $server.to }}
{{- $rule := toJson (list $server.port $to) }}
{{- if not (has $rule $allowed) }}
{{- $allowed = append $allowed $rule }}
- ports:
    - {port: {{ $server.port }}, protocol: TCP}
  {{- with $to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The egress rule to the issuer of tokens, for its keys. Empty if no keys are fetched. Arguments: the root context.
*/}}
{{- define "shopping-cart.networkPolicy.issuerRule" -}}
{{- $auth := .Values.auth }}
{{- if $auth.demoIssuer.enabled -}}
{{ include "shopping-cart.networkPolicy.egressRule" (dict "root" . "to" "issuer") }}
{{- else if and (eq $auth.mode "jwt") (not (include "shopping-cart.auth.isKeyFile" .)) -}}
- ports:
    - {port: {{ $auth.egress.port }}, protocol: TCP}
  {{- with $auth.egress.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/*
The egress rules that all processes share: DNS, and traces and metrics if they are sent. Arguments: the root context.
*/}}
{{- define "shopping-cart.networkPolicy.commonRules" -}}
{{ include "shopping-cart.networkPolicy.dnsRule" . }}
{{- if .Values.telemetry.endpoint }}
- ports:
    - {port: {{ (include "shopping-cart.telemetry.address" . | fromYaml).port }}, protocol: TCP}
  {{- with .Values.networkPolicy.telemetry.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/*
The egress rule for DNS. Arguments: the root context.
*/}}
{{- define "shopping-cart.networkPolicy.dnsRule" -}}
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
