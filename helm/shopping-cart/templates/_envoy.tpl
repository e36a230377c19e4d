{{/*
One of Envoy's files, filled in as local/edge.py does it: names in dollar-braces are replaced, and the lines from
`# if X` to `# end X` are dropped where X is off. envoy.yaml is made of the files in config/. Call with (list $ "envoy.yaml").
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
{{- if eq (index . 1) "envoy.yaml" }}
{{- range $path, $_ := $root.Files.Glob "files/envoy/config/*.yaml" }}
{{- $text = print $text ($root.Files.Get $path) }}
{{- end }}
{{- end }}
{{- if not $text }}
{{- fail "this copy of the chart lacks files/envoy: run `make generate`" }}
{{- end }}
{{- range $block, $wanted := dict "CORS" $origins "HOSTS" false "TLS" $gateway.tls.secretName "TRACING" $tracing }}
{{- if not $wanted }}
{{- $text = regexReplaceAll (printf "(?s) *# if %s\n.*?# end %s\n" $block $block) $text "" }}
{{- end }}
{{- end }}
{{- $memory := include "shopping-cart.envoy.memory" $root | int64 }}
{{- $heap := div (mul $memory 3) 4 }}
{{- /* An event stream takes some 40 KiB in Envoy. */}}
{{- $needed := div (mul $gateway.sse.maxStreams 40 1024 4) 3 }}
{{- if gt $needed $memory }}
{{- fail (printf "gateway.sse.maxStreams: %d streams need a memory limit of Envoy (gateway.envoy.resources.limits.memory) of %dMi or more" (int64 $gateway.sse.maxStreams) (add1 (div $needed 1048576))) }}
{{- end }}
{{- $host := include "shopping-cart.envoy.host" $root }}
{{- $values := dict
  "LISTEN_HOST" $host
  "LISTEN_BOTH" (eq $host "::" | toString)
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
  "MAX_HEAP" ($heap | toString)
  "MAX_CONNECTIONS" (div $memory 20480 | toString)
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

{{/* The bytes of memory that Envoy may take: its container's limit, or 512 MiB where there is none. */}}
{{- define "shopping-cart.envoy.memory" -}}
{{- $limit := "512Mi" }}
{{- with .Values.gateway.envoy.resources }}{{ with .limits }}{{ with .memory }}{{ $limit = . }}{{ end }}{{ end }}{{ end }}
{{- if not (kindIs "string" $limit) }}
{{- $limit | int64 }}
{{- else }}
{{- $number := regexFind "^[0-9.]+([eE][+-]?[0-9]+)?" $limit }}
{{- $unit := trimPrefix $number $limit }}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- if not (and $number (hasKey $units $unit)) }}
{{- fail (printf "gateway.envoy.resources.limits.memory: %s is no quantity of memory, as in 512Mi" $limit) }}
{{- end }}
{{- mulf (float64 $number) (float64 (get $units $unit)) | floor | int64 }}
{{- end }}
{{- end }}

{{/* Host and port of the telemetry endpoint, as YAML. */}}
{{- define "shopping-cart.telemetry.address" -}}
{{- $url := urlParse .Values.telemetry.endpoint }}
host: {{ $url.hostname | quote }}
port: {{ regexFind "[0-9]+$" $url.host | quote }}
{{- end }}

{{/* Where Envoy listens: `::` takes IPv4 too, and needs a node that knows IPv6. */}}
{{- define "shopping-cart.envoy.host" -}}
{{- $families := printf "%s %s" (join " " .Values.ipFamilies) .Values.ipFamilyPolicy }}
{{- default (ternary "::" "0.0.0.0" (regexMatch "IPv6|DualStack" $families)) .Values.gateway.listenHost }}
{{- end }}

{{/* What Envoy reads, as the data of a ConfigMap. */}}
{{- define "shopping-cart.envoy.files" -}}
data:
  {{- range list "envoy.yaml" "tls.yaml" }}
  {{ . }}: |
    {{- include "shopping-cart.envoy.file" (list $ .) | nindent 4 }}
  {{- end }}
  {{- range list "index.html" "requests.lua" }}
  {{ . }}: |
    {{- $.Files.Get (printf "files/envoy/%s" .) | nindent 4 }}
  {{- end }}
binaryData:
  shop.binpb: {{ .Files.Get "files/envoy/shop.binpb" | b64enc }}
{{- end }}

{{/* The sidecar's variables. */}}
{{- define "shopping-cart.sse.env" -}}
{{ include "shopping-cart.env.common" . }}
# The drain has taken its time when SIGTERM comes.
- {name: SHUTDOWN_DELAY, value: "0"}
- {name: SHUTDOWN_GRACE, value: "5"}
- {name: HTTP_PORT, value: "8081"}
- {name: GRPC_PORT, value: "50054"}
- {name: PRODUCT_TARGET, value: {{ include "shopping-cart.target" (list . "product" 50052) | quote }}}
- {name: ORDER_TARGET, value: {{ include "shopping-cart.target" (list . "order" 50053) | quote }}}
- {name: SSE_MAX_STREAMS, value: {{ int .Values.gateway.sse.maxStreams | quote }}}
- {name: SSE_MAX_STREAMS_PER_CLIENT, value: {{ int .Values.gateway.sse.maxStreamsPerClient | quote }}}
{{- end }}
