{{/*
Every template begins with this. It sets defaults for missing values, once, and checks what the schema cannot check.
Arguments: the root context.
*/}}
{{- define "shopping-cart.prepare" -}}
{{- if not (hasKey .Values "prepared") }}
{{- include "shopping-cart.setDefaults" (dict "values" .Values "defaults" (.Files.Get "files/values.yaml" | fromYaml)) }}
{{- $_ := set .Values "prepared" true }}
{{- include "shopping-cart.checkDatabases" . }}
{{- include "shopping-cart.checkAuth" . }}
{{- include "shopping-cart.checkMetrics" . }}
{{- $product := lookup "apps/v1" "Deployment" .Release.Namespace (include "shopping-cart.componentName" (dict "root" . "component" "product")) }}
{{- $until := default (include "shopping-cart.auth.acceptMissingUntil" (dict "live" $product "now" now)) .Values.auth.internal.optionalUntil }}
{{- $_ := set .Values "acceptMissingCredentialUntil" $until }}
{{- end }}
{{- end }}

{{/*
Sets defaults for missing values. A key without a value removes the chart's default, and `--reuse-values` lacks keys that an
older chart did not have. Below the keys named here, null is meant: it removes one entry. Arguments:
  values    values, which are changed
  defaults  the values.yaml of this chart
*/}}
{{- define "shopping-cart.setDefaults" -}}
{{- range $key, $default := .defaults }}
{{- if or (not (hasKey $.values $key)) (kindIs "invalid" (index $.values $key)) }}
{{- if ne $key "ttlSecondsAfterFinished" }}
{{- $_ := set $.values $key $default }}
{{- end }}
{{- else if and (kindIs "map" $default) (not (has $key (list "resources" "parameters" "podSecurityContext" "containerSecurityContext"))) }}
{{- include "shopping-cart.setDefaults" (dict "values" (index $.values $key) "defaults" $default) }}
{{- end }}
{{- end }}
{{- end }}

{{/*
Fails if both services are given the same database, or if values say where servers are and the database is the bundled one.
Arguments: the root context.
*/}}
{{- define "shopping-cart.checkDatabases" -}}
{{- range $component := list "product" "order" }}
{{- $database := (index $.Values $component).database }}
{{- if not $database.existingSecret }}
{{- $servers := dict "pooler.host" $database.pooler.host "readOnly.host" (dig "readOnly" "host" "" $database) }}
{{- range $key, $value := merge (pick $database "host" "username" "dbname") $servers }}
{{- if $value }}
{{- fail (printf "%s.database.%s has no effect with the bundled database: set %s.database.existingSecret" $component $key $component) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- $product := include "shopping-cart.database.identity" .Values.product.database }}
{{- if and $product (eq $product (include "shopping-cart.database.identity" .Values.order.database)) }}
{{- fail "product.database and order.database are the same database: each service needs one of its own" }}
{{- end }}
{{- end }}

{{/*
A text that identifies a database: address and name, each as its value or as the Secret's key that has it. Empty for the
bundled one. Arguments: the `database` values of a service.
*/}}
{{- define "shopping-cart.database.identity" -}}
{{- if .existingSecret }}
{{- $secret := printf "%s/" .existingSecret }}
{{- $address := printf "%s:%v" .host .port }}
{{- if not .host }}
{{- $address = printf "%s%s:%s" $secret .keys.host .keys.port }}
{{- end }}
{{- $name := .dbname | default (printf "%s%s" $secret .keys.dbname) }}
{{- printf "%s %s" $address $name }}
{{- end }}
{{- end }}
