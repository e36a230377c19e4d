{{/*
The files that Envoy reads, as `data` and `binaryData` of a ConfigMap. Arguments: the root context.
*/}}
{{- define "shopping-cart.envoy.files" -}}
{{- $config := "" }}
{{- range $path, $_ := .Files.Glob "files/envoy/config/*.yaml" }}
{{- $config = print $config ($.Files.Get $path) }}
{{- end }}
data:
  envoy.yaml: |
    {{- include "shopping-cart.envoy.fill" (dict "root" . "name" "envoy.yaml" "text" $config) | nindent 4 }}
  tls.yaml: |
    {{- include "shopping-cart.envoy.fill" (dict "root" . "name" "tls.yaml" "text" (.Files.Get "files/envoy/tls.yaml")) | nindent 4 }}
  requests.lua: |
    {{- .Files.Get "files/envoy/requests.lua" | nindent 4 }}
  {{- range $path, $_ := .Files.Glob "files/envoy/pages/*" }}
  {{ base $path }}: |
    {{- $.Files.Get $path | nindent 4 }}
  {{- end }}
binaryData:
  shop.binpb: {{ .Files.Get "files/envoy/shop.binpb" | b64enc }}
{{- end }}

{{/*
A file of Envoy's, filled in by the same three rules as in local/edge.py: ${NAME} is replaced by a value, the lines from
`# if X` to `# end X` are removed unless X is on, and those from `# each PAGE` to `# end PAGE` are repeated for each page. Arguments:
  root  the root context
  name  the file's name, for messages
  text  the file's text
*/}}
{{- define "shopping-cart.envoy.fill" -}}
{{- $text := .text }}
{{- if not $text }}
{{- fail "this copy of the chart lacks files/envoy: run `make generate`" }}
{{- end }}
{{- $values := include "shopping-cart.envoy.values" .root | fromYaml }}
{{- $blocks := dict
  "AUTH" (eq .root.Values.auth.mode "jwt")
  "CORS" .root.Values.gateway.cors.origins
  "DEBUG" false
  "DEMO_ISSUER" .root.Values.auth.demoIssuer.enabled
  "HOSTS" false
  "MAX_CONNECTION_AGE" .root.Values.gateway.maxConnectionAge
  "METRICS" .root.Values.telemetry.metrics.enabled
  "RATE_LIMIT" .root.Values.gateway.rateLimit.requestsPerSecond
  "TLS" .root.Values.gateway.tls.secretName
  "TRACING" $values.OTLP_HOST
}}
{{- range $block, $on := $blocks }}
{{- if not $on }}
{{- $text = regexReplaceAll (printf "(?s) *# if %s\n.*?# end %s\n" $block $block) $text "" }}
{{- end }}
{{- end }}
{{- with $block := regexFind "(?s) *# each PAGE\n.*? *# end PAGE\n" $text }}
{{- $routes := "" }}
{{- range include "shopping-cart.envoy.pages" $.root | fromYamlArray }}
{{- $route := regexReplaceAll " *# (each|end) PAGE\n" $block "" }}
{{- range $name, $value := . }}
{{- $route = $route | replace (printf "${%s}" $name) $value }}
{{- end }}
{{- $routes = print $routes $route }}
{{- end }}
{{- $text = $text | replace $block $routes }}
{{- end }}
{{- range $name, $value := $values }}
{{- $text = $text | replace (printf "${%s}" $name) $value }}
{{- end }}
{{- with regexFind "[$][{][A-Z_]+[}]" $text }}
{{- fail (printf "%s has no value in %s" . $.name) }}
{{- end }}
{{- $text }}
{{- end }}

{{/*
The pages that the edge serves, with the values of the names that stand for them in Envoy's files, as a YAML list. It is made
as in local/pages.py. Arguments: the root context.
*/}}
{{- define "shopping-cart.envoy.pages" -}}
{{- $types := dict
  ".css" "text/css; charset=utf-8"
  ".html" "text/html; charset=utf-8"
  ".js" "text/javascript; charset=utf-8"
  ".svg" "image/svg+xml"
}}
{{- range $file, $_ := .Files.Glob "files/envoy/pages/*" }}
{{- $name := base $file }}
{{- $path := print "/pages/" $name }}
{{- if hasSuffix ".html" $name }}
{{- $path = print "/" (trimSuffix ".html" $name) }}
{{- if eq $name "index.html" }}
{{- $path = "/" }}
{{- end }}
{{- end }}
- PAGE: {{ $name | quote }}
  PAGE_PATH: {{ $path | quote }}
  PAGE_TYPE: {{ get $types (ext $name) | quote }}
  PAGE_HASH: {{ $.Files.Get $file | sha256sum | trunc 32 | quote }}
{{- end }}
{{- end }}

{{/*
The value of each ${NAME} in Envoy's files, as a YAML mapping of strings. A test compares the names with those of
local/edge.py. Arguments: the root context.
*/}}
{{- define "shopping-cart.envoy.values" -}}
{{- $gateway := .Values.gateway }}
{{- $memory := include "shopping-cart.envoy.memory" . | int64 }}
{{- $host := include "shopping-cart.envoy.listenHost" . }}
{{- $otlp := dict "host" "" "port" "" }}
{{- /* Envoy's cluster for traces uses neither TLS nor HTTP/1.1. */}}
{{- if and (hasPrefix "http://" .Values.telemetry.endpoint) (eq .Values.telemetry.protocol "grpc") }}
{{- $otlp = include "shopping-cart.telemetry.address" . | fromYaml }}
{{- end }}
{{- $issuer := "" }}
{{- $audiences := "[]" }}
{{- $leeway := 0 }}
{{- if eq .Values.auth.mode "jwt" }}
{{- $issuer = include "shopping-cart.auth.issuer" . }}
{{- $audiences = include "shopping-cart.auth.audiences" . }}
{{- $leeway = ceil .Values.auth.leeway }}
{{- end }}
AUTH_ISSUER: {{ toJson $issuer | quote }}
AUTH_AUDIENCES: {{ $audiences | quote }}
AUTH_LEEWAY: {{ int $leeway | quote }}
LISTEN_HOST: {{ $host | quote }}
LISTEN_BOTH: {{ eq $host "::" | quote }}
LISTEN_PORT: {{ include "shopping-cart.port" (dict "component" "gateway") | quote }}
ADMIN_PORT: "9901"
METRICS_PORT: {{ include "shopping-cart.metrics.port" (dict "container" "envoy") | quote }}
DEBUG_PORT: "0"
PRODUCT_HOST: {{ include "shopping-cart.componentName" (dict "root" . "component" "product") | quote }}
PRODUCT_PORT: {{ include "shopping-cart.port" (dict "component" "product") | quote }}
ORDER_HOST: {{ include "shopping-cart.componentName" (dict "root" . "component" "order") | quote }}
ORDER_PORT: {{ include "shopping-cart.port" (dict "component" "order") | quote }}
ISSUER_HOST: {{ include "shopping-cart.componentName" (dict "root" . "component" "issuer") | quote }}
ISSUER_PORT: {{ include "shopping-cart.port" (dict "component" "issuer") | quote }}
SSE_HTTP_PORT: "8081"
SSE_GRPC_PORT: "50054"
FILES: /etc/envoy
RATE_LIMIT: {{ int $gateway.rateLimit.requestsPerSecond | quote }}
RATE_BURST: {{ int $gateway.rateLimit.burst | quote }}
MAX_STREAMS: {{ add $gateway.sse.maxStreams 5000 | quote }}
MAX_HEAP: {{ div (mul $memory 3) 4 | quote }}
MAX_CONNECTIONS: {{ div $memory 20480 | quote }}
MAX_CONNECTION_AGE: {{ int $gateway.maxConnectionAge | quote }}
TRUSTED_HOPS: {{ $gateway.trustedHops | toString | quote }}
CALLER_HEADER: x-shop-caller
CORS_ORIGINS: {{ include "shopping-cart.envoy.corsOrigins" . | quote }}
CORS_CREDENTIALS: {{ $gateway.cors.credentials | quote }}
HOSTS: {{ list "*" | toJson | quote }}
PAGE_SETTINGS: {{ dict "signIn" (eq .Values.auth.mode "jwt") "demoTokens" .Values.auth.demoIssuer.enabled | toJson | quote }}
OTLP_HOST: {{ $otlp.host | quote }}
OTLP_PORT: {{ $otlp.port | quote }}
TRACES_PER_MILLION: {{ round (mulf 1000000 .Values.telemetry.traces.sampleRatio) 0 | int | quote }}
TLS_DIR: /tls
{{- end }}

{{/*
gateway.cors.origins as a JSON list of Envoy's string matchers. Arguments: the root context.
*/}}
{{- define "shopping-cart.envoy.corsOrigins" -}}
{{- $matchers := list }}
{{- range .Values.gateway.cors.origins }}
{{- if or (and (hasPrefix "https:" .) (hasSuffix ":443" .)) (and (hasPrefix "http:" .) (hasSuffix ":80" .)) }}
{{- fail (printf "gateway.cors.origins: %s matches nothing: browsers omit the default port of the scheme" .) }}
{{- end }}
{{- if contains "://*." . }}
{{- $parts := splitn "://*." 2 . }}
{{- $regex := printf "%s://[a-z0-9_.-]+[.]%s" $parts._0 ($parts._1 | replace "." "[.]") }}
{{- $matchers = append $matchers (dict "safe_regex" (dict "regex" $regex)) }}
{{- else }}
{{- $matchers = append $matchers (dict "exact" .) }}
{{- end }}
{{- end }}
{{- $matchers | toJson }}
{{- end }}

{{/*
Envoy's memory in bytes: the limit of its container, or 512 MiB without one. Fails if gateway.sse.maxStreams needs more.
Arguments: the root context.
*/}}
{{- define "shopping-cart.envoy.memory" -}}
{{- $limit := "512Mi" }}
{{- with .Values.gateway.envoy.resources }}{{ with .limits }}{{ with .memory }}{{ $limit = . }}{{ end }}{{ end }}{{ end }}
{{- if kindIs "string" $limit }}
{{- $number := regexFind "^[0-9.]+([eE][+-]?[0-9]+)?" $limit }}
{{- $unit := trimPrefix $number $limit }}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- if not (and $number (hasKey $units $unit)) }}
{{- fail (printf "gateway.envoy.resources.limits.memory: %s is not a quantity of memory such as 512Mi" $limit) }}
{{- end }}
{{- $limit = mulf (float64 $number) (float64 (get $units $unit)) | floor }}
{{- end }}
{{- $memory := int64 $limit }}
{{- /* An event stream takes about 40 KiB in Envoy, whose heap may take three quarters of the memory. */}}
{{- $needed := div (mul .Values.gateway.sse.maxStreams 40 1024 4) 3 }}
{{- if gt $needed $memory }}
{{- fail (printf "gateway.sse.maxStreams: %d streams need a memory limit of Envoy (gateway.envoy.resources.limits.memory) of %dMi or more" (int64 .Values.gateway.sse.maxStreams) (add1 (div $needed 1048576))) }}
{{- end }}
{{- $memory }}
{{- end }}

{{/*
Host and port of the telemetry endpoint, as a YAML mapping. Arguments: the root context.
*/}}
{{- define "shopping-cart.telemetry.address" -}}
{{- $url := urlParse .Values.telemetry.endpoint }}
host: {{ $url.hostname | quote }}
port: {{ regexFind "[0-9]+$" $url.host | quote }}
{{- end }}

{{/*
The address that Envoy listens on. `::` accepts IPv4 too, and needs nodes with IPv6. Arguments: the root context.
*/}}
{{- define "shopping-cart.envoy.listenHost" -}}
{{- $families := printf "%s %s" (join " " .Values.ipFamilies) .Values.ipFamilyPolicy }}
{{- default (ternary "::" "0.0.0.0" (regexMatch "IPv6|DualStack" $families)) .Values.gateway.listenHost }}
{{- end }}
