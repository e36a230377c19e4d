{{/*
What every template begins with. It puts defaults where values are missing, once, and checks what the schema cannot.
*/}}
{{- define "shopping-cart.prepare" -}}
{{- if not (hasKey .Values "prepared") }}
{{- include "shopping-cart.fill" (dict "values" .Values "defaults" (.Files.Get "files/values.yaml" | fromYaml)) }}
{{- $_ := set .Values "prepared" true }}
{{- include "shopping-cart.check.databases" . }}
{{- end }}
{{- end }}

{{/*
Puts defaults where values are missing. `key:` with nothing behind it takes the default away, and `--reuse-values` lacks what an
older chart did not have. Below the keys named here a null is meant: it takes one entry out. Call with a dict: values, defaults.
*/}}
{{- define "shopping-cart.fill" -}}
{{- range $key, $default := .defaults }}
{{- if or (not (hasKey $.values $key)) (kindIs "invalid" (index $.values $key)) }}
{{- if ne $key "ttlSecondsAfterFinished" }}
{{- $_ := set $.values $key $default }}
{{- end }}
{{- else if and (kindIs "map" $default) (not (has $key (list "resources" "parameters" "podSecurityContext" "containerSecurityContext"))) }}
{{- include "shopping-cart.fill" (dict "values" (index $.values $key) "defaults" $default) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Refuses one database for both services, where it can be seen. */}}
{{- define "shopping-cart.check.databases" -}}
{{- $product := include "shopping-cart.database.place" .Values.product.database }}
{{- if and $product (eq $product (include "shopping-cart.database.place" .Values.order.database)) }}
{{- fail "product.database and order.database are the same database: each service needs one of its own" }}
{{- end }}
{{- end }}

{{/*
Which database it is: address and name, each as it is or as the key of a Secret that has it. Nothing for the bundled one. Call
with a service's database.
*/}}
{{- define "shopping-cart.database.place" -}}
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
