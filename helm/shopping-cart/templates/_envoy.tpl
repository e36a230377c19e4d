{{/*
One of Envoy's files, filled in as envoy/render.py does it: names in dollar-braces are replaced, and the lines from
`# if X` to `# end X` are dropped where X is off. Call with (list $ "envoy.yaml").
*/}}
{{- define "shopping-cart.envoy.file" -}}
{{- $root := index . 0 }}
{{- $gateway := $root.Values.gateway }}
{{- $otlp := dict "host" "" "port" "" }}
{{- /* Its cluster speaks no TLS. */}}
{{- $tracing := and (hasPrefix "http://" $root.Values.telemetry.endpoint) (eq $root.Values.telemetry.protocol "grpc") }}
{{- if $tracing }}
{{- $otlp = include "shopping-cart.telemetry.address" $root | fromYaml }}
{{- end }}
{{- $origins := list }}
{{- range $gateway.cors.origins }}
{{- if or (and (hasPrefix "https:" .) (hasSuffix ":443" .)) (and (hasPrefix "http:" .) (hasSuffix ":80" .)) }}
{{- fail (printf "gateway.cors.origins: %s matches nothing: browsers leave out the port that is the scheme's own" .) }}
{{- end }}
{{- if contains "://*." . }}
{{- $parts := splitn "://*." 2 . }}
{{- $regex := printf "%s://[a-z0-9_.-]+[.]%s" $parts._0 ($parts._1 | replace "." "[.]") }}
{{- $origins = append $origins (dict "safe_regex" (dict "regex" $regex)) }}
{{- else }}
{{- $origins = append $origins (dict "exact" .) }}
{{- end }}
{{- end }}
{{- $text := $root.Files.Get (printf "files/envoy/%s" (index . 1)) }}
{{- if not $text }}
{{- fail "files/envoy is empty: it is a symbolic link to envoy/, which this copy of the repository has lost" }}
{{- end }}
{{- range $block, $wanted := dict "CORS" $origins "HOSTS" false "TLS" $gateway.tls.secretName "TRACING" $tracing }}
{{- if not $wanted }}
{{- $text = regexReplaceAll (printf "(?s) *# if %s\n.*?# end %s\n" $block $block) $text "" }}
{{- end }}
{{- end }}
{{- $values := dict
  "LISTEN_HOST" "0.0.0.0"
  "LISTEN_PORT" "8080"
  "ADMIN_PORT" "9901"
  "PRODUCT_HOST" (include "shopping-cart.component" (list $root "product"))
  "PRODUCT_PORT" "50052"
  "ORDER_HOST" (include "shopping-cart.component" (list $root "order"))
  "ORDER_PORT" "50053"
  "SSE_HTTP_PORT" "8081"
  "SSE_GRPC_PORT" "50054"
  "FILES" "/etc/envoy"
  "MAX_STREAMS" (add $gateway.sse.maxStreams 5000 | toString)
  "TRUSTED_HOPS" ($gateway.trustedHops | toString)
  "CALLER_HEADER" "x-shop-caller"
  "CORS_ORIGINS" ($origins | toJson)
  "CORS_CREDENTIALS" ($gateway.cors.credentials | toJson)
  "HOSTS" (list "*" | toJson)
  "OTLP_HOST" $otlp.host
  "OTLP_PORT" $otlp.port
  "TLS_DIR" "/tls"
}}
{{- range $name, $value := $values }}
{{- $text = $text | replace (printf "${%s}" $name) $value }}
{{- end }}
{{- with regexFind "[$][{][A-Z_]+[}]" $text }}
{{- fail (printf "nothing is known for %s in %s" . (index $ 1)) }}
{{- end }}
{{- $text }}
{{- end }}

{{/* Host and port of the telemetry endpoint, as YAML. */}}
{{- define "shopping-cart.telemetry.address" -}}
{{- $url := urlParse .Values.telemetry.endpoint }}
host: {{ $url.hostname | quote }}
port: {{ regexFind "[0-9]+$" $url.host | quote }}
{{- end }}
